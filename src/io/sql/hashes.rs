//! Digests of a running server's files for a listing: the server computes them, as for a comparison.

use super::SqlSource;
use super::digests::{BATCH, STRETCHES, Stretch, remote};
use crate::cluster::{Hashing, PieceDigests};
use crate::error::Result;
use crate::progress::{Progress, Stage};

/// [`crate::cluster::Source::digests`] for a server.
pub(super) fn digests(source: &mut SqlSource, files: &[Hashing], progress: &dyn Progress) -> Result<Vec<PieceDigests>> {
    let encoding = source.patiently(|session, _| Ok(session.moved_on().encoding))?;
    let mut found = vec![PieceDigests::new(); files.len()];
    progress.begin(Stage::Hash, Some(files.iter().fold(0, |sum, file| sum.saturating_add(file.length))));
    // Looking up names that are no text costs more than copying what they name.
    let askable = files.iter().enumerate().filter(|(_, file)| encoding.text(file.path.as_bytes()).is_some());
    let mut stretches = askable.flat_map(|(index, file)| stretches(index, file)).peekable();
    let hashed = loop {
        let batch = next_batch(&mut stretches);
        if batch.is_empty() {
            break Ok(());
        }
        let answers = match remote(source, &batch) {
            Ok(answers) => answers,
            Err(error) => break Err(error),
        };
        for (stretch, digests) in batch.iter().zip(answers) {
            progress.advance(stretch.stop - stretch.start);
            // Behind a piece that is not there, none has a place.
            let place =
                found.get_mut(stretch.file).filter(|list| list.len() as u64 == stretch.start / stretch.step.max(1));
            if let Some(list) = place {
                list.extend(digests);
            }
        }
    };
    progress.end();
    hashed.map(|()| found)
}

/// A file in stretches of whole pieces, none of them more than a query is about.
fn stretches(index: usize, file: &Hashing) -> impl Iterator<Item = Stretch<'_>> {
    let step = u64::from(file.piece.max(1));
    let most = (BATCH / step).max(1).saturating_mul(step);
    (0..file.length.div_ceil(most)).map(move |number| {
        let start = number * most;
        Stretch { file: index, path: &file.path, start, stop: (start + most).min(file.length), step }
    })
}

fn next_batch<'a>(stretches: &mut std::iter::Peekable<impl Iterator<Item = Stretch<'a>>>) -> Vec<Stretch<'a>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < STRETCHES
        && let Some(stretch) = stretches.next_if(|next| batch.is_empty() || bytes + (next.stop - next.start) <= BATCH)
    {
        bytes += stretch.stop - stretch.start;
        batch.push(stretch);
    }
    batch
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::ClusterPath;

    #[test]
    fn queries_are_bounded_and_leave_nothing_out() {
        let file = |length, piece| Hashing { path: ClusterPath::new(b"x").unwrap(), length, piece };
        let files = [file(100, 1 << 20), file(2 * BATCH + 5, 1 << 20), file(8192 * 3, 8192), file(BATCH, 8192)];
        let mut stretches = files.iter().enumerate().flat_map(|(index, file)| stretches(index, file)).peekable();
        let mut batches = Vec::new();
        loop {
            let batch = next_batch(&mut stretches);
            if batch.is_empty() {
                break;
            }
            batches.push(batch.iter().map(|part| (part.file, part.start, part.stop)).collect::<Vec<_>>());
        }
        let expected = vec![
            vec![(0, 0, 100)],
            vec![(1, 0, BATCH)],
            vec![(1, BATCH, 2 * BATCH)],
            vec![(1, 2 * BATCH, 2 * BATCH + 5), (2, 0, 8192 * 3)],
            vec![(3, 0, BATCH)],
        ];
        assert_eq!(batches, expected);
        let many = vec![file(1, 8192); STRETCHES + 1];
        let mut stretches = many.iter().enumerate().flat_map(|(index, file)| super::stretches(index, file)).peekable();
        assert_eq!([next_batch(&mut stretches).len(), next_batch(&mut stretches).len()], [STRETCHES, 1]);
    }
}
