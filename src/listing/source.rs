//! A listing in the source's place, while a plan is made.

use sha2::{Digest, Sha256};

use super::model::{ListedMoment, SourceListing};
use crate::cluster::{
    ClusterReader, Comparison, DifferingBlocks, DirectoryId, FileEntry, Holds, Inventory, Likeness, LocalFiles, Names,
    PieceDigests, Position, ReadAt, Request, ServerFacts, Sink, Source, SourceKind,
};
use crate::error::{Error, Result};
use crate::format::{CONTROL_FILE_SIZE, Major};
use crate::progress::{Progress, Stage};
use crate::types::{ClusterPath, RelFileNumber};

/// A source as its listing says that it was. Nothing can be fetched from it.
#[derive(Debug)]
pub struct ListedSource {
    listing: SourceListing,
    /// Whether files were compared: what is asked after that, the source was asked after it had hashed them.
    compared: bool,
}

impl ListedSource {
    /// The source of this listing.
    #[must_use]
    pub fn new(listing: SourceListing) -> Self {
        Self { listing, compared: false }
    }

    /// What it is known from.
    #[must_use]
    pub fn listing(&self) -> &SourceListing {
        &self.listing
    }

    fn moment(&self) -> &ListedMoment {
        if self.compared { &self.listing.after } else { &self.listing.before }
    }

    fn likeness(&self, file: &Comparison, target: &dyn LocalFiles, buffer: &mut Vec<u8>) -> Result<Likeness> {
        let Some((piece, theirs)) = self.listing.entries.digests(&file.path) else { return Ok(Likeness::Different) };
        let length = self.listing.entries.inventory.get(&file.path).and_then(|entry| entry.size());
        // Pieces of other sizes, or a last one that is cut elsewhere, prove nothing.
        let comparable = file.block.is_none_or(|block| block == piece)
            && (length == Some(file.length) || file.length.is_multiple_of(u64::from(piece)));
        let needed = file.length.div_ceil(u64::from(piece));
        if !comparable || (theirs.len() as u64) < needed {
            return Ok(Likeness::Different);
        }
        let Some(open) = target.read_file(&file.path)? else { return Ok(Likeness::Different) };
        compare_pieces(file, piece, theirs, &*open, buffer)
    }
}

/// Compares the pieces of a file of the target with digests, of which there are enough.
fn compare_pieces(
    file: &Comparison,
    piece: u32,
    theirs: &PieceDigests,
    ours: &dyn ReadAt,
    buffer: &mut Vec<u8>,
) -> Result<Likeness> {
    let mut differing = DifferingBlocks::default();
    let mut at = 0;
    for (number, expected) in (0..).zip(theirs) {
        if at >= file.length {
            break;
        }
        let wanted = u64::from(piece).min(file.length - at);
        buffer.resize(usize::try_from(wanted).unwrap_or(0), 0);
        if ours.read_at(buffer, at)? != buffer.len() {
            return Ok(Likeness::Different);
        }
        if Sha256::digest(&*buffer).as_slice() != expected {
            if file.block.is_none() {
                return Ok(Likeness::Different);
            }
            differing.add(number);
        }
        at += wanted;
    }
    Ok(differing.likeness())
}

impl ClusterReader for ListedSource {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        let mut bytes = self.moment().control_file.0.clone();
        bytes.resize(CONTROL_FILE_SIZE, 0);
        Ok(bytes)
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let file = self.listing.files.iter().find(|file| file.path == *path);
        Ok(file.map(|file| file.content.as_bytes().to_vec()))
    }

    fn list(&mut self, _: &dyn Progress) -> Result<Inventory> {
        Ok(self.listing.entries.inventory.clone())
    }

    fn running_server(&self) -> Result<Option<i32>> {
        Ok(None)
    }
}

impl Source for ListedSource {
    fn kind(&self) -> SourceKind {
        self.listing.kind
    }

    fn address(&self) -> String {
        self.listing.address.clone()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        Vec::new()
    }

    fn primary_conninfo(&self, _: Major) -> Option<String> {
        self.listing.primary_conninfo.clone()
    }

    fn position(&mut self) -> Result<Option<Position>> {
        Ok(self.moment().position.map(Position::from))
    }

    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        Ok(self.listing.entries.inventory.get(path))
    }

    fn has_files(&self) -> bool {
        false
    }

    fn read_part(&mut self, path: &ClusterPath, _: u64, _: u32) -> Result<Option<Vec<u8>>> {
        Err(not_listed(path))
    }

    fn holds(&mut self, path: &ClusterPath, offset: u64, bytes: &[u8]) -> Result<Holds> {
        if self.listing.entries.inventory.get(path).is_none() {
            return Ok(Holds::NoFile);
        }
        let known = self.listing.records.iter().find(|record| record.path == *path && record.offset == offset);
        Ok(known.map_or(Holds::Unknown, |record| {
            let same = u64::from(record.length) == bytes.len() as u64
                && Sha256::digest(bytes).as_slice() == record.sha256.0.as_slice();
            if same { Holds::Yes } else { Holds::No }
        }))
    }

    fn compare(
        &mut self,
        files: &[Comparison],
        target: &dyn LocalFiles,
        progress: &dyn Progress,
    ) -> Result<Vec<Likeness>> {
        self.compared = true;
        progress.begin(Stage::Compare, Some(files.iter().fold(0, |sum, file| sum.saturating_add(file.length))));
        let mut buffer = Vec::new();
        let likenesses = files.iter().map(|file| {
            let likeness = self.likeness(file, target, &mut buffer).unwrap_or(Likeness::Different);
            progress.advance(file.length);
            likeness
        });
        let likenesses = likenesses.collect();
        progress.end();
        Ok(likenesses)
    }

    fn fetch(&mut self, requests: &[Request], _: &mut dyn Sink) -> Result<()> {
        requests.first().map_or(Ok(()), |request| Err(not_listed(&request.path)))
    }

    fn names(&mut self, databases: &[u32], relations: &[RelFileNumber]) -> Names {
        self.listing.names.of(databases, relations)
    }

    fn server_facts(&mut self) -> Result<Option<ServerFacts>> {
        Ok(self.listing.server.clone())
    }
}

fn not_listed(path: &ClusterPath) -> Error {
    Error::failure(format!("{path} cannot be read: there is only a listing of the source"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::{FileKind, Hashing};
    use crate::listing::{Entries, HexBytes, ListedNames, ListedRecord};
    use crate::manifest::Tool;
    use crate::progress::Silent;
    use crate::types::BlockRange;

    /// A source with the file `x` of these bytes, of which there are these digests of pieces of so many.
    fn source(content: &[u8], piece: u32, digests: usize) -> ListedSource {
        let path = ClusterPath::new(b"x").unwrap();
        let length = content.len() as u64;
        let kind = FileKind::File { size: length, modified: None };
        let inventory = [(path.clone(), FileEntry { kind, mode: None })].into_iter().collect();
        let sums = content.chunks(piece as usize).map(|piece| Sha256::digest(piece).into()).take(digests).collect();
        let moment = |byte| ListedMoment { control_file: HexBytes(vec![byte]), position: None };
        let sha256 = HexBytes(Sha256::digest(b"record").to_vec());
        ListedSource::new(SourceListing {
            address: String::new(),
            after: moment(2),
            before: moment(1),
            created: String::new(),
            digest: String::new(),
            entries: Entries::new(inventory, [(Hashing { path: path.clone(), length, piece }, sums)]),
            files: Vec::new(),
            format_version: String::new(),
            kind: SourceKind::StoppedDirectory,
            names: ListedNames::default(),
            primary_conninfo: None,
            records: vec![ListedRecord { length: 6, offset: 8, path, sha256 }],
            server: None,
            tool: Tool { name: String::new(), version: String::new() },
        })
    }

    struct Target(Vec<u8>);

    impl LocalFiles for Target {
        fn read_file(&self, _: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>> {
            Ok(Some(Box::new(self.0.clone())))
        }
    }

    #[test]
    fn likeness_by_digests() {
        let but = |first, count| Likeness::EqualBut(vec![BlockRange { first, count }]);
        // The source's bytes, in pieces, and how many are known; the target's; what is compared; how.
        type Case<'a> = (&'a [u8], u32, usize, &'a [u8], u64, Option<u32>, Likeness);
        let cases: [Case<'_>; 13] = [
            (b"aabbcc", 2, 3, b"aabbcc", 6, Some(2), Likeness::Equal),
            (b"aabbcc", 2, 3, b"aaxxcc", 6, Some(2), but(1, 1)),
            (b"aabbcc", 2, 3, b"xxxx", 4, Some(2), but(0, 2)),
            (b"aabbcc", 2, 2, b"aabb", 4, Some(2), Likeness::Equal),
            (b"aabbcc", 2, 2, b"aabbcc", 6, Some(2), Likeness::Different),
            (b"aabbcc", 4, 2, b"aabbcc", 6, Some(2), Likeness::Different),
            (b"aabbcc", 4, 2, b"aabbcc", 6, None, Likeness::Equal),
            (b"aabbcc", 4, 2, b"aabbcx", 6, None, Likeness::Different),
            (b"aabbcc", 4, 1, b"aabbcc", 6, None, Likeness::Different),
            (b"aabbcc", 4, 0, b"aabbcc", 6, None, Likeness::Different),
            // Up to the middle of a piece nothing is known.
            (b"aabbcc", 4, 2, b"aabbc", 5, None, Likeness::Different),
            (b"aabbcc", 4, 2, b"aabbc", 4, None, Likeness::Equal),
            // The target's has become shorter.
            (b"aabbcc", 4, 2, b"aabb", 6, None, Likeness::Different),
        ];
        for (number, (theirs, piece, known, ours, length, block, expected)) in cases.into_iter().enumerate() {
            let file = Comparison { path: ClusterPath::new(b"x").unwrap(), length, block };
            let found = source(theirs, piece, known).compare(&[file], &Target(ours.to_vec()), &Silent).unwrap();
            assert_eq!(found, [expected], "case {number}");
        }
    }

    #[test]
    fn records_are_known_or_not() {
        let path = |name: &str| ClusterPath::new(name.as_bytes()).unwrap();
        let mut source = source(b"x", 1, 1);
        let cases = [
            ("x", 8, "record", Holds::Yes),
            ("x", 8, "drocer", Holds::No),
            ("x", 8, "rec", Holds::No),
            ("x", 0, "record", Holds::Unknown),
            ("y", 8, "record", Holds::NoFile),
        ];
        for (name, offset, bytes, expected) in cases {
            assert_eq!(
                source.holds(&path(name), offset, bytes.as_bytes()).unwrap(),
                expected,
                "{name} {offset} {bytes}"
            );
        }
    }

    #[test]
    fn what_is_asked_after_comparing_was_asked_after_hashing() {
        let mut source = source(b"x", 1, 1);
        let first = |source: &mut ListedSource| source.control_file().unwrap().first().copied();
        assert_eq!(first(&mut source), Some(1));
        source.compare(&[], &Target(Vec::new()), &Silent).unwrap();
        assert_eq!((first(&mut source), source.control_file().unwrap().len()), (Some(2), CONTROL_FILE_SIZE));
    }

    #[test]
    fn nothing_can_be_fetched() {
        let mut source = source(b"x", 1, 1);
        let path = ClusterPath::new(b"x").unwrap();
        let failed = source.read_part(&path, 0, 1).unwrap_err().to_string();
        assert_eq!(failed, "x cannot be read: there is only a listing of the source");
    }
}
