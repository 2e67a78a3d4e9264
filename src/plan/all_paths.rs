//! Deciding on every path of both sides: the decision table, and the rules of the person who plans.

use std::collections::BTreeMap;

use crate::cluster::{Inventory, both};
use crate::error::{Error, Result};
use crate::manifest::{Action, ActionKind, Kept, PathRule};
use crate::types::ClusterPath;

use super::decide::{Decision, DecisionContext, decide};
use super::new_tablespaces::{Moved, makes_tablespace};
use super::path_rules::{Covered, RulesAtWork};

/// What was decided on all paths.
pub(super) struct Decided {
    /// What is done, in the order of work.
    pub(super) actions: Vec<Action>,
    /// What is left alone.
    pub(super) kept: Vec<Kept>,
    /// New tablespaces that go elsewhere than on the source.
    pub(super) moved: Moved,
    /// The rules, and what they touched.
    pub(super) rules: Vec<PathRule>,
}

/// Decides on every path of both sides.
pub(super) fn decide_all(
    source: &Inventory,
    target: &Inventory,
    context: &DecisionContext<'_>,
    mut rules: RulesAtWork<'_>,
) -> Result<Decided> {
    let (mut actions, mut kept, mut contradictions) = (Vec::new(), Vec::new(), Vec::new());
    let mut staying = BTreeMap::new();
    for (path, ours, theirs) in both(target, source) {
        let decision = decide(&path, ours.as_ref(), theirs.as_ref(), context);
        let covered = rules.covering(&path, ours.is_some())?;
        match (decision, covered) {
            (Ok(Decision::Nothing), _) => {}
            (Ok(Decision::Keep(reason)), _) => kept.push(Kept { before: None, path, reason, rule: None, source: None }),
            (_, Some(covered)) => {
                if ours.is_some() {
                    staying.extend(path.directories().map(|parent| (parent.to_vec(), covered.clone())));
                }
                leave(path, &covered, &mut rules, &mut kept);
            }
            (Ok(Decision::Act(action)), None) => actions.push(*action),
            (Err(error), None) => contradictions.push(error.to_string()),
        }
    }
    if !contradictions.is_empty() {
        return Err(Error::precondition(contradictions.join("; "))
            .hint("make both sides agree on what these paths are, and plan again"));
    }
    // A directory in which something stays, stays.
    let is_staying =
        |action: &Action| staying.get(action.path.as_bytes()).filter(|_| action.kind == ActionKind::Remove);
    for action in &actions {
        if let Some(covered) = is_staying(action) {
            leave(action.path.clone(), covered, &mut rules, &mut kept);
        }
    }
    actions.retain(|action| is_staying(action).is_none());
    let moved = map_tablespaces(&mut actions, &mut rules);
    actions.sort_unstable_by(|a, b| (a.phase, &a.path).cmp(&(b.phase, &b.path)));
    Ok(Decided { actions, kept, moved, rules: rules.finish() })
}

/// Leaves a path alone because of a rule.
fn leave(path: ClusterPath, covered: &Covered, rules: &mut RulesAtWork<'_>, kept: &mut Vec<Kept>) {
    rules.note(covered);
    let (reason, rule) = (covered.reason, Some(covered.rule.clone()));
    kept.push(Kept { before: None, path, reason, rule, source: None });
}

/// New tablespaces go where the mapping says.
fn map_tablespaces(actions: &mut [Action], rules: &mut RulesAtWork<'_>) -> Moved {
    let mut moved = Moved::new();
    for action in actions.iter_mut().filter(|action| makes_tablespace(action)) {
        let Some(link) = action.after.as_mut().and_then(|after| after.link.as_mut()) else { continue };
        let Some(location) = rules.location(link) else { continue };
        moved.insert(action.path.clone(), (link.to_string(), location.to_string()));
        *link = location;
    }
    moved
}
