//! Reading a data directory on this machine.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::postmaster::running_postmaster;
use crate::cluster::{
    ClusterReader, DirectoryId, FileEntry, FileKind, FileTime, Inventory, Position, Request, SMALL_FILE_LIMIT, Sink,
    Source, SourceKind, Target, WalFile, WalFiles,
};
use crate::error::{Context, Error, Result};
use crate::format::Major;
use crate::progress::{Progress, Stage};
use crate::types::{ClusterPath, FileMode, LinkText, WalFileName, WalSegmentSize};

/// A data directory on this machine, for reading.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    metadata: Metadata,
    roots: Vec<(ClusterPath, LinkText)>,
}

impl DataDirectory {
    /// Opens a data directory.
    ///
    /// # Errors
    /// When it is none, or belongs to another user, as far as that can be seen from outside.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let path = fs::canonicalize(path)
            .map_err(|error| Error::precondition(format!("cannot open data directory {shown}")).because(error))?;
        let metadata = fs::metadata(&path).context(|| format!("cannot look at {shown}"))?;
        if !path.join("PG_VERSION").is_file() || !path.join("global").is_dir() {
            return Err(Error::precondition(format!("{shown} is no PostgreSQL data directory"))
                .hint("name the directory that holds PG_VERSION and global/pg_control"));
        }
        let owner = rustix::process::geteuid().as_raw();
        if metadata.uid() != owner {
            return Err(Error::precondition(format!(
                "{shown} belongs to user id {}, this is user id {owner}",
                metadata.uid()
            ))
            .hint("run pg_unfork as the user that owns the data directory"));
        }
        let roots = find_roots(&path)?;
        Ok(Self { path, metadata, roots })
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
            Err(error) => return Err(error).context(|| format!("cannot open {}", full.display())),
        };
        let mut bytes = Vec::new();
        file.take(SMALL_FILE_LIMIT + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("cannot read {}", full.display()))?;
        if bytes.len() as u64 > SMALL_FILE_LIMIT {
            return Err(Error::failure(format!("{} has more than {SMALL_FILE_LIMIT} bytes", full.display())));
        }
        Ok(Some(bytes))
    }

    /// The directories that this cluster consists of.
    fn ids(&self) -> Vec<DirectoryId> {
        let mut ids = vec![id_of("data directory", &self.metadata)];
        for (path, _) in &self.roots {
            // A link that leads nowhere is the server's concern, not ours.
            if let Ok(metadata) = fs::metadata(self.full(path)) {
                ids.push(id_of(&path.to_string(), &metadata));
            }
        }
        ids
    }

    fn walk(&self, directory: Option<&ClusterPath>, found: &mut Inventory, progress: &dyn Progress) -> Result<()> {
        let full = directory.map_or(self.path.clone(), |directory| self.full(directory));
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            // Gone since its own entry was read, or a tablespace's link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(|| format!("cannot list {}", full.display())),
        };
        let mut count = 0;
        for entry in entries {
            let entry = entry.context(|| format!("cannot list {}", full.display()))?;
            let name = entry.file_name();
            let path = match directory {
                Some(directory) => directory.join(name.as_bytes()),
                None => ClusterPath::new(name.as_bytes()),
            };
            let path = path.context(|| format!("{} holds a name that cannot be used", full.display()))?;
            let Some(entry) = self.look(&path)? else { continue };
            let descend = self.descends(&path, &entry.kind);
            found.insert(path.clone(), entry);
            count += 1;
            if descend {
                self.walk(Some(&path), found, progress)?;
            }
        }
        progress.advance(count);
        Ok(())
    }

    /// What is at `path`; none for what is gone, or is neither file, directory nor symlink.
    fn look(&self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        let full = self.full(path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(|| format!("cannot look at {}", full.display())),
        };
        let kind = if metadata.is_dir() || (metadata.is_symlink() && path.as_bytes() == b"pg_wal") {
            FileKind::Directory
        } else if metadata.is_symlink() {
            let text = fs::read_link(&full).context(|| format!("cannot read the link {}", full.display()))?;
            FileKind::Symlink { text: text.into_os_string().into_vec() }
        } else if metadata.is_file() {
            FileKind::File { size: metadata.len(), modified: Some(modified(&metadata)) }
        } else {
            return Ok(None);
        };
        Ok(Some(FileEntry { kind, mode: Some(FileMode::new(metadata.mode())) }))
    }

    /// Directories, and the links in `pg_tblspc`.
    fn descends(&self, path: &ClusterPath, kind: &FileKind) -> bool {
        match kind {
            FileKind::Directory => crate::cluster::rules::rule_of(path) != crate::cluster::rules::PathRule::OwnState,
            FileKind::Symlink { .. } => path.below(b"pg_tblspc").is_some_and(|name| !name.contains(&b'/')),
            FileKind::File { .. } => false,
        }
    }
}

fn id_of(name: &str, metadata: &Metadata) -> DirectoryId {
    DirectoryId { name: name.to_owned(), device: metadata.dev(), inode: metadata.ino() }
}

fn modified(metadata: &Metadata) -> FileTime {
    FileTime { seconds: metadata.mtime(), nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) }
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
            Error::precondition(format!("{} has no global/pg_control", self.path.display()))
                .hint("this is no complete data directory; make it anew from a base backup")
        })
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.small(path)
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        let mut found = Inventory::new();
        progress.begin(Stage::List, None);
        let walked = self.walk(None, &mut found, progress);
        progress.end();
        walked.map(|()| found)
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

    fn roots(&self) -> Vec<(ClusterPath, LinkText)> {
        self.roots.clone()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        self.ids()
    }
}

impl WalFiles for DataDirectory {
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>> {
        let opened = OpenFile::at(self.path.join("pg_wal").join(name.text(size)))?;
        Ok(opened.map(|file| -> Box<dyn WalFile> { Box::new(file) }))
    }
}

/// A file open for reading, a WAL segment for example.
struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    /// Opens the file; `None` where there is none.
    fn at(path: PathBuf) -> Result<Option<Self>> {
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { file, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot open {}", path.display())),
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
                Err(error) => return Err(error).context(|| format!("cannot read {}", self.path.display())),
            }
        }
        Ok(got)
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
        let got = file.read_at(&mut bytes, offset)?;
        bytes.truncate(got);
        Ok(Some(bytes))
    }

    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        let mut open: Option<(&ClusterPath, File)> = None;
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
                        Err(error) => return Err(error).context(|| format!("cannot open {}", full.display())),
                    }
                }
            };
            sink.file(index, file.as_fd())?;
            open = Some((&request.path, file));
        }
        Ok(())
    }
}
