//! Hashing pieces of files of a data directory on this machine.

use sha2::{Digest, Sha256};

use super::compare::share_out;
use crate::cluster::{Hashing, LocalFiles, PieceDigests};
use crate::error::Result;
use crate::progress::{Progress, Stage};

/// Hashes files on all processors, as far as they can be read.
pub(super) fn hash(local: &dyn LocalFiles, files: &[Hashing], progress: &dyn Progress) -> Vec<PieceDigests> {
    let mut found = vec![PieceDigests::new(); files.len()];
    progress.begin(Stage::Hash, Some(files.iter().fold(0, |sum, file| sum.saturating_add(file.length))));
    share_out(
        files.len(),
        || {
            let mut buffer = Vec::new();
            move |index| files.get(index).map(|file| hash_one(local, file, &mut buffer)).unwrap_or_default()
        },
        |index, digests| {
            progress.advance(files.get(index).map_or(0, |file| file.length));
            if let Some(place) = found.get_mut(index) {
                *place = digests;
            }
        },
    );
    progress.end();
    found
}

fn hash_one(local: &dyn LocalFiles, file: &Hashing, buffer: &mut Vec<u8>) -> PieceDigests {
    let mut digests = PieceDigests::new();
    let mut fill = || -> Result<()> {
        let Some(open) = local.read_file(&file.path)? else { return Ok(()) };
        let mut at = 0;
        while at < file.length {
            let wanted = u64::from(file.piece.max(1)).min(file.length - at);
            buffer.resize(usize::try_from(wanted).unwrap_or(0), 0);
            if open.read_at(buffer, at)? != buffer.len() {
                return Ok(());
            }
            digests.push(Sha256::digest(&*buffer).into());
            at += wanted;
        }
        Ok(())
    };
    // What cannot be read has no digests: it is copied, and whoever does that says why it cannot be.
    let _ = fill();
    digests
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::ReadAt;
    use crate::error::Error;
    use crate::progress::Silent;
    use crate::types::ClusterPath;

    struct Files;

    impl LocalFiles for Files {
        fn read_file(&self, path: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>> {
            match path.to_string().as_str() {
                "file" => Ok(Some(Box::new(b"abcdefgh".to_vec()))),
                "unreadable" => Err(Error::failure("no permission")),
                _ => Ok(None),
            }
        }
    }

    #[test]
    fn pieces_as_far_as_there_are_any() {
        let sums = |pieces: &[&str]| pieces.iter().map(|piece| Sha256::digest(piece).into()).collect::<PieceDigests>();
        let cases = [
            ("file", 8, 3, sums(&["abc", "def", "gh"])),
            ("file", 8, 8, sums(&["abcdefgh"])),
            ("file", 6, 4, sums(&["abcd", "ef"])),
            // It has become shorter.
            ("file", 9, 3, sums(&["abc", "def"])),
            ("unreadable", 8, 3, sums(&[])),
            ("gone", 8, 3, sums(&[])),
        ];
        let file =
            |path: &str, length, piece| Hashing { path: ClusterPath::new(path.as_bytes()).unwrap(), length, piece };
        let files: Vec<Hashing> = cases.iter().map(|(path, length, piece, _)| file(path, *length, *piece)).collect();
        let expected: Vec<PieceDigests> = cases.into_iter().map(|(.., digests)| digests).collect();
        assert_eq!(hash(&Files, &files, &Silent), expected);
    }
}
