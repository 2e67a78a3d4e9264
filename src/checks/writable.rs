//! What this process may not change.

use super::{finding, with_lines};
use crate::manifest::{Check, CheckStatus};
use crate::types::ClusterPath;

/// `writable`: whether everything can be changed that the plan changes; `obstacles` are the paths that cannot, and why.
#[must_use]
pub fn writable(obstacles: &[(ClusterPath, &str)]) -> Check {
    if obstacles.is_empty() {
        let detail = "all that the plan changes can be written".to_owned();
        return finding("writable", CheckStatus::Pass, detail, None);
    }
    let detail = match obstacles {
        [(path, why)] => format!("the target cannot be changed: {path}: {why}"),
        [(path, why), rest @ ..] => {
            format!("the target cannot be changed: {path}: {why}, and {} more", rest.len())
        }
        [] => String::new(),
    };
    let remedy =
        "let the owner of the data directory own and write these, without chattr's attributes, then plan again";
    let evidence = obstacles.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    with_lines(finding("writable", CheckStatus::Fail, detail, Some(remedy)), evidence, Vec::new())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_obstacle_is_named() {
        let path = |name: &str| ClusterPath::new(name.as_bytes()).unwrap();
        let cases = [
            (vec![], CheckStatus::Pass, "all that the plan changes can be written"),
            (vec![(path("a"), "it is odd")], CheckStatus::Fail, "the target cannot be changed: a: it is odd"),
            (
                vec![(path("a\n"), "it is odd"), (path("b"), "it is not writable")],
                CheckStatus::Fail,
                "the target cannot be changed: a%0A: it is odd, and 1 more",
            ),
        ];
        for (obstacles, status, detail) in cases {
            let found = writable(&obstacles);
            assert_eq!((found.status, found.detail.as_str()), (status, detail));
            assert_eq!(found.evidence.len(), obstacles.len());
        }
    }
}
