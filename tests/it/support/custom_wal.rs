//! An extension with a resource manager of its own, compiled against a major's headers (`c/custom_wal.c`).

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::outcome::Outcome;
use super::scratch;
use super::servers::{Installation, Major};

/// The compiled extension. Clusters that load it must not outlive it.
#[derive(Debug)]
pub(crate) struct Library {
    directory: TempDir,
}

/// Compiles it; resource managers of extensions came with 15.
pub(crate) fn build(major: Major) -> Library {
    let library = Library { directory: scratch::directory("custom_wal") };
    let source = library.directory.path().join("custom_wal.c");
    std::fs::write(&source, include_str!("c/custom_wal.c")).expect("the source text");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-I"]).arg(Installation::of(major).headers());
    let _ = Outcome::of(compile.arg("-o").arg(library.path()).arg(source)).success();
    library
}

impl Library {
    /// The setting that loads it.
    pub(crate) fn preload(&self) -> String {
        format!("shared_preload_libraries = '{}'\n", self.path().display())
    }

    /// The script that makes its SQL functions.
    pub(crate) fn functions(&self) -> String {
        let path = self.path();
        let library = path.display();
        format!(
            "CREATE FUNCTION set_first_column(oid, int, int) RETURNS void STRICT LANGUAGE C AS '{library}';
             CREATE FUNCTION note(int, bool) RETURNS void STRICT LANGUAGE C AS '{library}';"
        )
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("custom_wal.so")
    }
}
