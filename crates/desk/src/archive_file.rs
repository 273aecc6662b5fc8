//! The files that dead letters are written to: NDJSON, readable only for their owner, on disk before anything is removed from a
//! queue.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncWriteExt as _, BufWriter};

use super::DeskError;

fn create_file(path: &Path) -> Result<File, DeskError> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| DeskError::CannotCreate(format!("{} cannot be created: {error}", path.display())))
}

/// Syncs the directory of a file, so that the file's name is durable.
fn sync_directory(path: &Path) -> Result<(), DeskError> {
    let directory = directory_of(path);
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(DeskError::cannot_write(directory))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file that is complete, or does not exist: a partial file gets its name when its last line is on disk.
pub(super) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<tokio::fs::File>,
}

impl NewFile {
    /// # Errors
    /// It exists already.
    pub fn check(path: &Path) -> Result<(), DeskError> {
        if path.exists() {
            let text = format!("{} exists already; export to a new file", path.display());
            return Err(DeskError::CannotCreate(text));
        }
        Ok(())
    }

    /// # Errors
    /// It exists already, or cannot be created.
    pub fn create(path: &Path) -> Result<NewFile, DeskError> {
        NewFile::check(path)?;
        let partial = PathBuf::from(format!("{}.partial", path.display()));
        // One that a killed export has left goes; one that another export writes is locked.
        let is_file = std::fs::symlink_metadata(&partial).is_ok_and(|found| found.is_file());
        let left = if is_file { File::open(&partial).ok() } else { None };
        if left.is_some_and(|left| matches!(left.try_lock(), Err(TryLockError::WouldBlock))) {
            let text = format!("{} cannot be created: another export writes it", partial.display());
            return Err(DeskError::CannotCreate(text));
        }
        let _ = std::fs::remove_file(&partial);
        let file = create_file(&partial)?;
        // Not every file system has locks.
        let _ = file.try_lock();
        let out = BufWriter::new(tokio::fs::File::from_std(file));
        Ok(NewFile { path: path.to_owned(), partial, out })
    }

    /// Appends a line.
    pub async fn write(&mut self, line: &str) -> Result<(), DeskError> {
        let written = async {
            self.out.write_all(line.as_bytes()).await?;
            self.out.write_all(b"\n").await
        };
        written.await.map_err(DeskError::cannot_write(&self.partial))
    }

    /// Gives the file its name.
    pub async fn finish(mut self) -> Result<(), DeskError> {
        let written = async {
            self.out.flush().await?;
            self.out.get_ref().sync_all().await?;
            std::fs::rename(&self.partial, &self.path)
        };
        written.await.map_err(DeskError::cannot_write(&self.path))?;
        sync_directory(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // There is none any more after `finish`.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// A file for what a command is about to change. It is created when the first line is written, and holds complete lines only.
pub struct BackupFile {
    path: PathBuf,
    file: Option<File>,
    /// Bytes that are on disk.
    length: u64,
}

impl BackupFile {
    /// Nothing is created yet.
    pub fn new(path: PathBuf) -> Self {
        BackupFile { path, file: None, length: 0 }
    }

    /// The file, if it holds anything.
    pub fn created(&self) -> Option<String> {
        (self.length > 0).then(|| self.path.display().to_string())
    }

    /// Whether the file can be created, as far as that is known before.
    ///
    /// # Errors
    /// It exists already, or its directory does not.
    pub fn check(&self) -> Result<(), DeskError> {
        let cannot = |why| Err(DeskError::CannotCreate(format!("{} cannot be created: {why}", self.path.display())));
        match directory_of(&self.path) {
            _ if self.path.exists() => cannot("it exists already; name a new file"),
            directory if !directory.is_dir() => cannot("its directory does not exist"),
            _ => Ok(()),
        }
    }

    /// Appends lines, and syncs them to disk.
    ///
    /// # Errors
    /// The file cannot be created or written. None of these lines is in it then; without earlier ones there is no file.
    pub fn append(&mut self, lines: &str) -> Result<(), DeskError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => create_file(&self.path)?,
        };
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        let mut written = written.map_err(DeskError::cannot_write(&self.path));
        if written.is_ok() && self.length == 0 {
            written = sync_directory(&self.path);
        }
        match &written {
            Ok(()) => self.length += lines.len() as u64,
            Err(_) if self.length == 0 => drop(std::fs::remove_file(&self.path)),
            Err(_) => drop(file.set_len(self.length).and_then(|()| file.sync_data())),
        }
        if written.is_ok() || self.length > 0 {
            self.file = Some(file);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_with_its_first_lines_and_only_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backup");
        let mut backup = BackupFile::new(path.clone());
        assert!(backup.check().is_ok() && !path.exists() && backup.created().is_none());
        backup.append("").unwrap();
        assert!(!path.exists());
        backup.append("1\n").unwrap();
        backup.append("2\n3\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
        assert_eq!(backup.created(), Some(path.display().to_string()));
        let again = BackupFile::new(path);
        assert!(again.check().unwrap_err().to_string().ends_with("it exists already; name a new file"));
        let nowhere = BackupFile::new(directory.path().join("missing/backup"));
        assert!(nowhere.check().unwrap_err().to_string().ends_with("its directory does not exist"));
    }

    #[tokio::test]
    async fn two_exports_to_one_file_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("export");
        std::fs::write(directory.path().join("export.partial"), "left over\n").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        let error = NewFile::create(&path).err().unwrap().to_string();
        assert!(error.ends_with("another export writes it"), "{error}");
        file.write("1").await.unwrap();
        file.finish().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        assert!(NewFile::create(&path).err().unwrap().to_string().contains("exists already"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
