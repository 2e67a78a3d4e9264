//! Opening what lies beneath a directory, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What the system says.
pub(super) type OsResult<T> = Result<T, Errno>;

/// Opens `path` beneath `root` without following any symlink, the last component included.
///
/// By `openat2`, or component by component where the kernel or a container's filter does not
/// allow that.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> OsResult<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, flags, mode, resolve) {
        Err(Errno::NOSYS | Errno::PERM) => open_by_component(root, path, flags, mode),
        outcome => outcome,
    }
}

/// The parent directory of `path` beneath `root`, opened, and the last component.
pub(super) fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p Path) -> OsResult<(OwnedFd, &'p Path)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    Ok((directory, Path::new(name)))
}

fn open_by_component(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> OsResult<OwnedFd> {
    let mut directory: Option<OwnedFd> = None;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        use std::path::Component::{CurDir, Normal};
        let name = match component {
            Normal(name) => Path::new(name),
            CurDir => Path::new("."),
            _ => return Err(Errno::XDEV),
        };
        let at = directory.as_ref().map_or(root, AsFd::as_fd);
        if components.peek().is_none() {
            return fs::openat(at, name, flags, mode);
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = Some(fs::openat(at, name, step, Mode::empty())?);
    }
    Err(Errno::INVAL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What opening `path` for reading comes to, by both ways.
    fn both(root: &OwnedFd, path: &str) -> (bool, bool) {
        let flags = OFlags::RDONLY;
        let by_kernel = open_beneath(root.as_fd(), Path::new(path), flags, Mode::empty()).is_ok();
        let by_hand = open_by_component(root.as_fd(), Path::new(path), flags | OFlags::NOFOLLOW, Mode::empty()).is_ok();
        (by_kernel, by_hand)
    }

    #[test]
    fn nothing_leads_out() {
        let scratch = tempfile::tempdir().unwrap();
        let inside = scratch.path().join("inside");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("sub/file"), "x").unwrap();
        std::fs::write(scratch.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
        std::os::unix::fs::symlink("sub", inside.join("across")).unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
        let root = fs::open(&inside, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let cases = [
            ("sub/file", true),
            ("sub", true),
            ("../secret", false),
            ("sub/../sub/file", true),
            ("up/secret", false),
            ("link", false),
            ("across/file", false),
            ("/etc/passwd", false),
        ];
        for (path, opens) in cases {
            let (by_kernel, by_hand) = both(&root, path);
            assert_eq!(by_kernel, opens, "{path}");
            // By hand `..` is refused even where it stays inside: no caller ever asks for it.
            assert_eq!(by_hand, opens && !path.contains(".."), "{path}");
        }
    }
}
