//! Owns the files that dead letters are written to: NDJSON, readable only for their owner, on disk before anything is removed
//! from a queue. Must not know queues or commands.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::DeskError;

/// Creates a new file that only its owner can read.
pub fn create_file(path: &Path) -> Result<File, DeskError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| DeskError::CannotCreate(format!("{} cannot be created: {error}", path.display())))
}

/// Syncs the directory of a file, so that the file's name is durable.
pub fn sync_directory(path: &Path) -> Result<(), DeskError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
}

/// A file for what a command is about to change. It is created when the first line is written.
pub struct BackupFile {
    path: PathBuf,
    file: Option<File>,
}

impl BackupFile {
    /// Nothing is created yet.
    pub fn new(path: PathBuf) -> Self {
        BackupFile { path, file: None }
    }

    /// The file, if it was created.
    pub fn created(&self) -> Option<String> {
        self.file.is_some().then(|| self.path.display().to_string())
    }

    /// Creates the file, unless it was created already.
    pub fn create(&mut self) -> Result<&mut File, DeskError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = create_file(&self.path)?;
                sync_directory(&self.path)?;
                file
            }
        };
        Ok(self.file.insert(file))
    }

    /// Appends lines, and syncs them to disk.
    pub fn append(&mut self, lines: &str) -> Result<(), DeskError> {
        let file = self.create()?;
        file.write_all(lines.as_bytes())?;
        Ok(file.sync_data()?)
    }
}
