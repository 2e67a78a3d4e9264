//! What is packaged besides the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::outcome::Outcome;
use crate::support::tool::pg_unfork;

/// Set to write the files instead of comparing them.
const UPDATE: &str = "PG_UNFORK_UPDATE_PACKAGING";

/// The manual pages and completions in the repository are those that the program writes.
#[test]
fn pages_and_completions_are_those_of_the_program() {
    let page = |arguments: &[&str]| Outcome::of(pg_unfork(&["man"]).args(arguments)).success().stdout.into_bytes();
    let whole = page(&[]);
    let mut made = BTreeMap::from([("man/pg_unfork.1".to_owned(), whole.clone())]);
    let commands = String::from_utf8(whole).unwrap();
    for line in commands.lines() {
        let command = line.strip_prefix("pg_unfork\\-").and_then(|rest| rest.strip_suffix("(1)"));
        made.extend(command.map(|command| (format!("man/pg_unfork-{command}.1"), page(&[command]))));
    }
    for (shell, name) in [("bash", "pg_unfork.bash"), ("zsh", "_pg_unfork"), ("fish", "pg_unfork.fish")] {
        let script = Outcome::of(&mut pg_unfork(&["completions", shell])).success().stdout;
        made.insert(format!("completions/{name}"), script.into_bytes());
    }
    assert!(made.contains_key("man/pg_unfork.1") && made.contains_key("man/pg_unfork-plan.1"));

    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    if std::env::var_os(UPDATE).is_some() {
        for (name, text) in &made {
            fs::write(packaging.join(name), text).unwrap();
        }
    }
    let mut there = BTreeMap::new();
    for directory in ["man", "completions"] {
        for entry in fs::read_dir(packaging.join(directory)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{directory}/{}", entry.file_name().to_str().unwrap());
            there.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    let differ = made.iter().filter(|(name, text)| there.get(*name) != Some(text)).map(|(name, _)| name);
    let differ: Vec<&String> = differ.chain(there.keys().filter(|name| !made.contains_key(*name))).collect();
    assert!(differ.is_empty(), "not as the program writes them; {UPDATE}=1 writes them anew: {differ:?}");
}

/// A page can be asked for by its command's name; what is no command is said.
#[test]
fn one_page_at_a_time() {
    let page = Outcome::of(&mut pg_unfork(&["man", "apply"])).success().stdout;
    assert!(page.contains(".TH pg_unfork-apply 1") && page.contains("expect\\-digest"), "{page}");
    let whole = Outcome::of(&mut pg_unfork(&["man"])).success().stdout;
    assert!(whole.contains(".SH \"EXIT STATUS\"") && whole.contains("pg_unfork\\-rewind(1)"), "{whole}");
    let none = Outcome::of(&mut pg_unfork(&["man", "revert"]));
    assert!(none.status.code() == Some(64) && none.stderr.contains("no command revert"), "{none}");
    assert_eq!(Outcome::of(&mut pg_unfork(&["completions", "tcsh"])).status.code(), Some(64));
}
