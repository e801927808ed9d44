//! The folder a broker runs in: its lock, its admin socket, its log, and what it was started with.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use displaydoc::Display;
use nix::errno::Errno;
use nix::fcntl::{FlockArg, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest path the kernel takes as the address of a socket.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// [`DataFolder::is_taken`] holds the lock for an instant to try it; who takes it tries again that often.
const LOCK_TRIES: u32 = 10;

/// Time between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the data folder cannot be used.
#[derive(Debug, Display, Error)]
pub enum DataFolderError {
    /// cannot create the data folder {0}: {1}; name another with --data
    Create(PathBuf, io::Error),
    /// cannot use {0}: {1}; the data folder must be writable, name another with --data
    File(PathBuf, io::Error),
    /// a broker (process {pid}) already runs on the data folder {folder}; stop it, or name another folder with --data
    Taken {
        /// The folder.
        folder: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// cannot listen on the admin socket {0}: {1}
    Socket(PathBuf, io::Error),
}

/// The folder and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFolder {
    path: PathBuf,
}

/// What a broker was started with; kept for `restart` and for telling its name when it is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Name of the node.
    pub node: String,
    /// The command line behind the command.
    pub arguments: Vec<String>,
}

/// Holds the folder for this process until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl DataFolder {
    /// Names a folder; touches nothing.
    #[must_use]
    pub fn new(path: PathBuf) -> DataFolder {
        DataFolder { path }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `ringmq.sock`: the admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("ringmq.sock")
    }

    /// `ringmq.pid`: the process id; locked while the broker lives.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("ringmq.pid")
    }

    /// `ringmq.log`: what a broker in the background writes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("ringmq.log")
    }

    /// `ringmq.launch`: what the broker was started with.
    #[must_use]
    pub fn launch_file(&self) -> PathBuf {
        self.path.join("ringmq.launch")
    }

    /// Makes the folder, for its owner only, if it is missing.
    ///
    /// # Errors
    /// [`DataFolderError::Create`].
    pub fn create(&self) -> Result<(), DataFolderError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| DataFolderError::Create(self.path.clone(), error))
    }

    /// Takes the folder for this process. The lock is the kernel's and ends with the process, so a broker that was killed
    /// leaves nothing to clean up.
    ///
    /// # Errors
    /// [`DataFolderError::Taken`] if a living broker holds it.
    pub fn lock(&self) -> Result<FolderLock, DataFolderError> {
        let path = self.pid_file();
        let failed = |error| DataFolderError::File(path.clone(), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(failed)?;
        let mut tries = LOCK_TRIES;
        loop {
            match flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock) {
                Ok(()) => break,
                Err(Errno::EWOULDBLOCK) if tries > 0 => {
                    tries -= 1;
                    thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::EWOULDBLOCK) => {
                    let pid =
                        self.pid().map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                    return Err(DataFolderError::Taken { folder: self.path.clone(), pid });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(FolderLock { file })
    }

    /// Whether a living broker holds the folder.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let Ok(file) = File::open(self.pid_file()) else { return false };
        flock(file.as_raw_fd(), FlockArg::LockSharedNonblock) == Err(Errno::EWOULDBLOCK)
    }

    /// The process id in the pid file.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let mut text = String::new();
        File::open(self.pid_file()).ok()?.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// Listens on the admin socket, for the owner of the process only. `_lock` shows that no living broker has it, so a
    /// socket found there is a dead one's and is replaced.
    ///
    /// # Errors
    /// [`DataFolderError::Socket`].
    pub fn listen(&self, _lock: &FolderLock) -> Result<UnixListener, DataFolderError> {
        let path = self.socket();
        let failed = |error| DataFolderError::Socket(path.clone(), error);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = self.at_socket(|address| UnixListener::bind(address)).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Connects to the admin socket.
    ///
    /// # Errors
    /// What the system says; not found or connection refused: no broker runs here.
    pub fn connect(&self) -> io::Result<UnixStream> {
        self.at_socket(|address| UnixStream::connect(address))
    }

    /// Calls with a path of the socket that is short enough for the kernel, by way of the open folder if need be.
    fn at_socket<T>(&self, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.socket();
        if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
            return call(&path);
        }
        let folder = File::open(&self.path)?;
        call(Path::new(&format!("/proc/self/fd/{}/ringmq.sock", folder.as_raw_fd())))
    }

    /// Keeps what the broker was started with.
    ///
    /// # Errors
    /// [`DataFolderError::File`].
    pub fn save_launch(&self, launch: &Launch) -> Result<(), DataFolderError> {
        let path = self.launch_file();
        let text = serde_json::to_string(launch).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text))
            .map_err(|error| DataFolderError::File(path.clone(), error))
    }

    /// What the last broker in this folder was started with.
    #[must_use]
    pub fn launch(&self) -> Option<Launch> {
        serde_json::from_slice(&fs::read(self.launch_file()).ok()?).ok()
    }
}

impl FolderLock {
    /// Empties the pid file: the end was an orderly one. The lock goes with the drop.
    pub fn release(self) {
        if let Err(error) = self.file.set_len(0) {
            log::warn!("cannot empty the pid file: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
