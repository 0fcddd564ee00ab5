//! Where the socket of an identity is: `control.sock` in its folder, or, where that path is too long for a Unix
//! socket, a short path in the runtime folder to which `control.sock` is a symbolic link.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::home::{IdentityFolder, create_private};

/// The background peer's end. Its files are removed when it is dropped.
pub(crate) struct Listener {
    inner: UnixListener,
    socket: PathBuf,
    link: Option<PathBuf>,
}

impl Listener {
    /// Takes the place of whatever socket was there; the caller holds the lock of the folder.
    pub(crate) fn bind(folder: &IdentityFolder) -> io::Result<Self> {
        let path = socket_path(folder);
        if let Ok(target) = fs::read_link(&path) {
            remove(&target)?;
        }
        remove(&path)?;
        let (socket, link) = if path.as_os_str().len() <= SOCKET_PATH_MAX {
            (path, None)
        } else {
            (short_path()?, Some(path))
        };
        let inner = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        if let Some(link) = &link {
            symlink(&socket, link)?;
        }
        Ok(Self {
            inner,
            socket,
            link,
        })
    }

    /// The next connection, from a process of this user.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.inner.accept().await?;
            match check_peer(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the control socket was refused")
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for path in self.link.iter().chain([&self.socket]) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Connects to the background peer of an identity; fails at once where none listens.
pub(super) async fn connect(folder: &IdentityFolder) -> io::Result<UnixStream> {
    let path = socket_path(folder);
    let target = match fs::read_link(&path) {
        Ok(target) => target,
        Err(_) if path.as_os_str().len() <= SOCKET_PATH_MAX => path,
        // A socket there would be reached through a link.
        Err(_) => return Err(io::ErrorKind::NotFound.into()),
    };
    let stream = UnixStream::connect(target).await?;
    check_peer(&stream)?;
    Ok(stream)
}

fn check_peer(stream: &UnixStream) -> io::Result<()> {
    if stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the other end of the control socket is another user",
        ))
    }
}

fn socket_path(folder: &IdentityFolder) -> PathBuf {
    folder.path().join("control.sock")
}

/// A path that nobody else has or will have, in a folder of this user alone: the link of a peer that was killed
/// must never lead to another's socket.
fn short_path() -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
    let folder = runtime
        .map(PathBuf::from)
        .unwrap_or_else(std::env::temp_dir)
        .join(format!("p2pshare-{uid}"));
    create_private(&folder)?;
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let message = format!("{} is not a folder of this user alone", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(folder.join(format!("{:016x}.sock", rand::random::<u64>())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Longest path that every platform takes for a socket, with a little room.
const SOCKET_PATH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    async fn meet(folder: &IdentityFolder) {
        let listener = Listener::bind(folder).unwrap();
        let (client, server) = tokio::join!(connect(folder), listener.accept());
        client.unwrap();
        server.unwrap();
        assert_eq!(
            fs::metadata(folder.path().join("control.sock"))
                .unwrap()
                .mode()
                & 0o777,
            0o600
        );
    }

    #[tokio::test]
    async fn a_short_folder_holds_the_socket_itself() {
        let temp = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(temp.path().to_owned());
        meet(&folder).await;
        assert!(connect(&folder).await.is_err());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_long_folder_holds_a_link_to_it() {
        let temp = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(temp.path().join("x".repeat(100)));
        folder.create().unwrap();
        let missing = connect(&folder).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        meet(&folder).await;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_peer_left_never_leads_to_another() {
        let temp = tempfile::tempdir().unwrap();
        let [killed, other] = ["x", "y"].map(|name| {
            let folder = IdentityFolder::at(temp.path().join(name.repeat(100)));
            folder.create().unwrap();
            folder
        });
        // Dead, and its process id another's.
        let mut dead = Listener::bind(&killed).unwrap();
        (dead.socket, dead.link) = (temp.path().join("none"), None);
        drop(dead);
        let _listener = Listener::bind(&other).unwrap();
        assert!(connect(&other).await.is_ok());
        let error = connect(&killed).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        meet(&killed).await;
    }

    #[tokio::test]
    async fn what_a_killed_peer_left_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "x".repeat(100)] {
            let folder = IdentityFolder::at(temp.path().join(name));
            folder.create().unwrap();
            std::mem::forget(Listener::bind(&folder).unwrap());
            meet(&folder).await;
        }
    }
}
