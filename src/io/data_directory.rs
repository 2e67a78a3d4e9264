//! Reading a data directory on this machine.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;

use super::advice::{LookAhead, sequential};
use super::compare::compare;
use super::durable::SyncMethod;
use super::hash::hash;
use super::postmaster::running_postmaster;
use super::restore_command::RestoreCommand;
use super::spare_wal::SpareWal;
use super::target_store::DirectoryStore;
use super::walk;
use crate::cluster::{
    ClusterReader, Comparison, DirectoryId, FileEntry, Hashing, Inventory, Likeness, Listing, LocalFiles, PieceDigests,
    Position, ReadAt, Request, Restored, SMALL_FILE_LIMIT, Sink, Site, Source, SourceKind, Target, WalFile, WalFiles,
};
use crate::error::{Context, Error, ErrorId, ErrorKind, Result};
use crate::format::Major;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, Silent, Stage};
use crate::types::{ClusterPath, FileMode, LinkText, WalFileName, WalSegmentSize};

/// A data directory on this machine, for reading.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    metadata: Metadata,
    roots: Vec<(ClusterPath, LinkText)>,
    /// A listing that was begun.
    listing: Option<JoinHandle<Result<Listing>>>,
    /// WAL that `pg_wal` lacks.
    spare_wal: SpareWal,
    /// Who reads shall stop.
    interrupt: Interrupt,
}

impl DataDirectory {
    /// Opens a data directory.
    ///
    /// # Errors
    /// When it is none, or belongs to another user, as far as that can be seen from outside.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let path = fs::canonicalize(path).map_err(|error| {
            let failure = Error::of(ErrorId::NotACluster, format!("cannot open data directory {shown}"));
            failure.because(error).hint("check the path; pg_unfork runs on the machine of the data directory")
        })?;
        let metadata = fs::metadata(&path).context(|| format!("cannot look at {shown}"))?;
        if metadata.is_dir() {
            check_owner(&path, metadata.uid(), rustix::process::geteuid().as_raw())?;
            fs::read_dir(&path).map_err(|error| unusable("read", &path, error))?;
        }
        let is_directory = |name: &str| path.join(name).is_dir();
        if !path.join("PG_VERSION").is_file() || !is_directory("global") || !is_directory("pg_tblspc") {
            return Err(Error::of(ErrorId::NotACluster, format!("{shown} is no PostgreSQL data directory"))
                .hint("name the directory that holds PG_VERSION, global and pg_tblspc"));
        }
        let roots = find_roots(&path)?;
        Ok(Self::at(path, metadata, roots))
    }

    fn at(path: PathBuf, metadata: Metadata, roots: Vec<(ClusterPath, LinkText)>) -> Self {
        let spare_wal = SpareWal::default();
        Self { path, metadata, roots, listing: None, spare_wal, interrupt: Interrupt::new() }
    }

    /// From now on, whoever sets `interrupt` ends what is read here.
    pub fn stop_on(&mut self, interrupt: Interrupt) {
        self.interrupt = interrupt;
    }

    /// Names the command that restores WAL segments which `pg_wal` lacks.
    pub fn restore_by(&mut self, command: RestoreCommand) {
        self.spare_wal.command = Some(command);
    }

    /// Another handle on the same directory.
    fn another(&self) -> Self {
        Self::at(self.path.clone(), self.metadata.clone(), self.roots.clone())
    }

    /// The directory's real path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The real paths of the directories that links of the data directory lead to.
    #[must_use]
    pub fn followed(&self) -> Vec<PathBuf> {
        self.roots.iter().filter_map(|(link, _)| fs::canonicalize(self.full(link)).ok()).collect()
    }

    fn full(&self, path: &ClusterPath) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }

    fn small(&self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let full = self.full(path);
        let file = match File::open(&full) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable("open", &full, error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(SMALL_FILE_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|error| unusable("read", &full, error))?;
        if bytes.len() as u64 > SMALL_FILE_LIMIT {
            let message = format!("{} has more than {SMALL_FILE_LIMIT} bytes", full.display());
            return Err(Error::precondition(message).hint("no such file is that long; put a good copy there"));
        }
        Ok(Some(bytes))
    }

    /// The directories that this cluster consists of.
    fn ids(&self) -> Vec<DirectoryId> {
        let mut ids = vec![id_of("data directory", &self.path, &self.metadata)];
        for (path, _) in &self.roots {
            // A link that leads nowhere is the server's concern, not ours.
            let real = fs::canonicalize(self.full(path));
            if let Ok((real, metadata)) = real.and_then(|real| fs::metadata(&real).map(|metadata| (real, metadata))) {
                ids.push(id_of(&path.to_string(), &real, &metadata));
            }
        }
        ids
    }

    /// What is at `path`; none for what is gone, or is neither file, directory nor symlink.
    fn look(&self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        walk::look(rustix::fs::CWD, &self.full(path), path, &self.path)
    }
}

/// Only the owner may use a cluster: what another user writes, the server could not read.
fn check_owner(path: &Path, owner: u32, user: u32) -> Result<()> {
    if owner == user {
        return Ok(());
    }
    Err(Error::of(
        ErrorId::NotWritable,
        format!("{} belongs to user id {owner}, this is user id {user}", path.display()),
    )
    .hint("run pg_unfork as the user that owns the data directory, like the server"))
}

/// A file or directory of a cluster that cannot be used as what it should be.
pub(super) fn unusable(what: &str, path: &Path, error: io::Error) -> Error {
    let failure = Error::failure(format!("cannot {what} {}", path.display()));
    let failure = match error.kind() {
        io::ErrorKind::PermissionDenied => failure
            .with_kind(ErrorKind::Precondition)
            .hint("let the owner of the data directory read everything that is in it"),
        _ if Errno::from_io_error(&error) == Some(Errno::LOOP) => failure
            .with_kind(ErrorKind::Precondition)
            .hint("it is a symlink that leads back to itself, or through too many others: make it lead to what belongs there, or remove it"),
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => failure
            .with_kind(ErrorKind::Precondition)
            .hint("move away what does not belong there, and put back what does"),
        _ => failure.hint("see the system's log for errors of the disk or of the file system"),
    };
    failure.because(error)
}

/// What identifies the directory at this real path, and those that it lies in.
fn id_of(name: &str, real: &Path, metadata: &Metadata) -> DirectoryId {
    let above = real.ancestors().skip(1).filter_map(|directory| fs::metadata(directory).ok());
    DirectoryId {
        name: name.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
        ancestors: above.map(|metadata| (metadata.dev(), metadata.ino())).collect(),
    }
}

/// The links that are followed: `pg_wal`, and the entries of `pg_tblspc`.
fn find_roots(directory: &Path) -> Result<Vec<(ClusterPath, LinkText)>> {
    let mut candidates = vec![b"pg_wal".to_vec()];
    let tablespaces = directory.join("pg_tblspc");
    let entries = fs::read_dir(&tablespaces).context(|| format!("cannot list {}", tablespaces.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("cannot list {}", tablespaces.display()))?;
        candidates.push([b"pg_tblspc/", entry.file_name().as_bytes()].concat());
    }
    candidates.sort();
    let mut roots = Vec::new();
    for name in candidates {
        let path = ClusterPath::new(&name).context(|| format!("cannot use a name in {}", tablespaces.display()))?;
        if let Ok(text) = fs::read_link(directory.join(std::ffi::OsStr::from_bytes(&name))) {
            roots.push((path, LinkText::new(text.as_os_str().as_bytes())));
        }
    }
    Ok(roots)
}

impl ClusterReader for DataDirectory {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        let path = ClusterPath::new(b"global/pg_control").context(|| "no such name".to_owned())?;
        self.small(&path)?.ok_or_else(|| {
            Error::of(ErrorId::ControlFileDamaged, format!("{} has no global/pg_control", self.path.display()))
                .hint("this is no complete data directory; make it anew from a base backup")
        })
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.small(path)
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        self.interrupt.check()?;
        progress.begin(Stage::List, None);
        let found = match self.listing.take() {
            Some(begun) => begun
                .join()
                .unwrap_or_else(|_| Err(Error::failure("the thread that lists files has died")))
                .inspect(|found| progress.advance(found.len() as u64)),
            None => walk::walk(&self.path, walk::THREADS, progress),
        };
        progress.end();
        found.map(Listing::finish)
    }

    fn running_server(&self) -> Result<Option<i32>> {
        running_postmaster(&self.path)
    }
}

impl Target for DataDirectory {
    fn directory(&self) -> LinkText {
        LinkText::new(self.path.as_os_str().as_bytes())
    }

    fn directory_mode(&self) -> FileMode {
        FileMode::new(self.metadata.mode())
    }

    fn begin_to_list(&mut self) {
        let path = self.path.clone();
        // Where there can be no thread, there is time to list later.
        self.listing = thread::Builder::new().spawn(move || walk::walk(&path, walk::THREADS, &Silent)).ok();
    }

    fn roots(&self) -> Vec<(ClusterPath, LinkText)> {
        self.roots.clone()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        self.ids()
    }

    fn site(&self) -> Result<Box<dyn Site>> {
        Ok(Box::new(DirectoryStore::open(&self.path, &self.roots, SyncMethod::None)?))
    }

    fn restore_segment(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<Restored> {
        self.spare_wal.restore(name, size, check)
    }

    fn take_segment(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        read: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>>,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<bool> {
        self.spare_wal.take(name, size, read, check)
    }
}

impl WalFiles for DataDirectory {
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>> {
        self.interrupt.check()?;
        let Some(file) = OpenFile::at(self.path.join("pg_wal").join(name.text(size)))? else {
            return Ok(self.spare_wal.get(name).map(|file| -> Box<dyn WalFile> { Box::new(file) }));
        };
        sequential(&file.file);
        Ok(Some(Box::new(file)))
    }
}

/// A file open for reading, a WAL segment for example.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    /// For messages.
    pub(super) path: PathBuf,
}

impl OpenFile {
    /// Opens the file; `None` where there is none.
    fn at(path: PathBuf) -> Result<Option<Self>> {
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { file, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable("open", &path, error)),
        }
    }
}

impl WalFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read_at(buffer.get_mut(got..).unwrap_or_default(), offset + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unusable("read", &self.path, error)),
            }
        }
        Ok(got)
    }
}

impl LocalFiles for DataDirectory {
    fn read_file(&self, path: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>> {
        self.interrupt.check()?;
        Ok(OpenFile::at(self.full(path))?.map(|file| -> Box<dyn ReadAt> { Box::new(file) }))
    }
}

impl ReadAt for OpenFile {
    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| unusable("look at", &self.path, error))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        WalFile::read_at(self, buffer, offset)
    }
}

/// A stopped data directory as the source.
#[derive(Debug)]
pub struct StoppedSource(DataDirectory);

impl StoppedSource {
    /// The source in this directory.
    #[must_use]
    pub fn new(directory: DataDirectory) -> Self {
        Self(directory)
    }
}

impl ClusterReader for StoppedSource {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        self.0.control_file()
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.0.read_small(path)
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        self.0.list(progress)
    }

    fn running_server(&self) -> Result<Option<i32>> {
        self.0.running_server()
    }
}

impl Source for StoppedSource {
    fn kind(&self) -> SourceKind {
        SourceKind::StoppedDirectory
    }

    fn address(&self) -> String {
        self.0.directory().to_string()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        self.0.ids()
    }

    fn primary_conninfo(&self, _: Major) -> Option<String> {
        None
    }

    fn position(&mut self) -> Result<Option<Position>> {
        Ok(None)
    }

    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        self.0.look(path)
    }

    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
        let Some(file) = OpenFile::at(self.0.full(path))? else { return Ok(None) };
        let mut bytes = vec![0; length as usize];
        let got = WalFile::read_at(&file, &mut bytes, offset)?;
        bytes.truncate(got);
        Ok(Some(bytes))
    }

    fn digests(&mut self, files: &[Hashing], progress: &dyn Progress) -> Result<Vec<PieceDigests>> {
        Ok(hash(&self.0, files, progress))
    }

    fn compare(
        &mut self,
        files: &[Comparison],
        target: &dyn LocalFiles,
        progress: &dyn Progress,
    ) -> Result<Vec<Likeness>> {
        Ok(compare(&self.0, target, files, progress))
    }

    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        let mut open: Option<(&ClusterPath, File)> = None;
        let mut ahead = LookAhead::default();
        for (index, request) in requests.iter().enumerate() {
            let file = match open.take() {
                Some((path, file)) if *path == request.path => file,
                _ => {
                    let full = self.0.full(&request.path);
                    match File::open(&full) {
                        Ok(file) => file,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            sink.gone(index)?;
                            continue;
                        }
                        Err(error) => return Err(unusable("open", &full, error)),
                    }
                }
            };
            ahead.at(requests, index, &file);
            sink.file(index, file.as_fd())?;
            open = Some((&request.path, file));
        }
        Ok(())
    }

    fn another(&self) -> Option<Box<dyn Source + Send>> {
        Some(Box::new(Self(self.0.another())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_use_a_cluster() {
        assert!(check_owner(Path::new("/data"), 70, 70).is_ok());
        let error = check_owner(Path::new("/data"), 0, 70).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert_eq!(error.to_string(), "/data belongs to user id 0, this is user id 70");
    }

    #[test]
    fn a_listing_that_was_begun_is_given_once() {
        let scratch = tempfile::tempdir().unwrap();
        for directory in ["global", "pg_tblspc"] {
            fs::create_dir(scratch.path().join(directory)).unwrap();
        }
        fs::write(scratch.path().join("PG_VERSION"), "18\n").unwrap();
        let mut cluster = DataDirectory::open(scratch.path()).unwrap();
        let listed = cluster.list(&Silent).unwrap();
        assert_eq!(listed.iter().count(), 3);
        cluster.begin_to_list();
        assert_eq!(cluster.list(&Silent).unwrap(), listed);
        fs::write(scratch.path().join("new"), "").unwrap();
        assert_eq!(cluster.list(&Silent).unwrap().iter().count(), 4);
    }
}
