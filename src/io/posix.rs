//! How strictly the environment wants command lines to be read.

/// Whether options end at the first word that is none (`POSIXLY_CORRECT`).
#[must_use]
pub fn is_posixly_correct() -> bool {
    std::env::var_os("POSIXLY_CORRECT").is_some()
}
