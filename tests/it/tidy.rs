//! The shape of the source: lower layers never name upper ones, and no test file is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the library each module may name.
const EDGES: [(&str, &[&str]); 15] = [
    ("types", &[]),
    ("error", &[]),
    ("progress", &[]),
    ("interrupt", &["error"]),
    ("format", &["types"]),
    ("cluster", &["types", "error", "progress", "format"]),
    ("manifest", &["types", "error", "format", "cluster"]),
    ("checks", &["types", "error", "format", "cluster", "manifest"]),
    ("discard", &["types", "error", "format", "cluster", "manifest"]),
    ("plan", &["types", "error", "progress", "format", "cluster", "manifest", "checks", "discard"]),
    ("apply", &["types", "error", "interrupt", "progress", "format", "cluster", "manifest", "checks", "plan"]),
    ("listing", &["types", "error", "progress", "format", "cluster", "manifest", "checks", "plan"]),
    ("compat", &["types", "cluster", "manifest", "plan"]),
    ("report", &["types", "cluster", "manifest"]),
    ("io", &["types", "error", "interrupt", "progress", "format", "cluster"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that the code of a file names as `crate::module`; tests may name anything.
fn named_modules(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut modules = BTreeSet::new();
    for line in lines {
        for rest in line.split("crate::").skip(1) {
            modules.insert(rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect());
        }
    }
    modules
}

#[test]
fn lower_layers_never_name_upper_ones() {
    let source = root().join("src");
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main", "cli"].contains(&module) {
            continue;
        }
        let (_, allowed) =
            EDGES.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} has no row"));
        for named in named_modules(&file) {
            let fine = named == module || allowed.contains(&named.as_str());
            assert!(fine, "{} names crate::{named}, which {module} must not know", relative.display());
        }
        seen.insert(module.to_owned());
    }
    let rows: BTreeSet<String> = EDGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, rows);
}

#[test]
fn no_test_file_is_forgotten() {
    let directory = root().join("tests/it");
    let main = fs::read_to_string(directory.join("main.rs")).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || main.contains(&format!("mod {module};")), "tests/it/{name} is declared nowhere");
    }
}
