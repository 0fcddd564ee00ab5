//! The home: the folder in which this user's identities live, each in `<home>/<ring id>/<user>`.
//!
//! An identity is logged in exactly as long as its folder holds an identity file. All folders are made 0700, a home
//! that somebody else could write to is refused, and a small file here is only ever replaced whole.

mod identity_file;
mod known_rings;
mod trackers;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use p2pshare::{RingId, TrackerAddr, UserName};

pub(crate) use identity_file::IdentityFile;
pub(crate) use trackers::find_trackers;

use crate::failure::Failure;

/// The folder of all identities of one person on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    path: PathBuf,
}

impl Home {
    /// The home that the user chose, or that of the platform. Nothing is created.
    pub(crate) fn locate(chosen: Option<&Path>) -> Result<Self, Failure> {
        let path = match chosen {
            Some(path) if path.as_os_str().is_empty() => {
                return Err(Failure::usage("the home is given as an empty path"));
            }
            Some(path) => path.to_owned(),
            None => etcetera::base_strategy::choose_native_strategy()
                .map_err(|error| {
                    Failure::failed(error.to_string()).hint("choose a folder with --home")
                })?
                .data_dir()
                .join("p2pshare"),
        };
        let path = std::path::absolute(&path).map_err(|error| {
            Failure::io(format!("cannot find the home {}", path.display()), &error)
        })?;
        Ok(Self { path })
    }

    /// Makes sure that nobody else can replace what is in it. One that does not exist yet is fine: it is made for this
    /// user alone.
    ///
    /// # Errors
    /// When it is no folder, belongs to another user, or its group or others may write to it.
    pub(crate) fn check_guarded(&self) -> Result<(), Failure> {
        match fs::metadata(&self.path) {
            Ok(found) if !found.is_dir() => Err(Failure::failed(format!(
                "the home {} is not a folder",
                self.path.display()
            ))),
            Ok(found) => check_guarded(&self.path, found.uid(), found.mode()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::io(
                format!("cannot look at the home {}", self.path.display()),
                &error,
            )),
        }
    }

    /// The folder itself; always absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where an identity lives, whether it exists or not.
    pub(crate) fn folder(&self, ring: RingId, user: &UserName) -> IdentityFolder {
        IdentityFolder {
            path: self.path.join(ring.to_string()).join(user.folded()),
        }
    }

    /// The identities, in the order of ring and name.
    pub(crate) fn identities(&self) -> Identities {
        let mut folders: Vec<_> = subfolders(&self.path)
            .into_iter()
            .filter(|ring| {
                ring.file_name()
                    .is_some_and(|name| name.to_string_lossy().parse::<RingId>().is_ok())
            })
            .flat_map(|ring| subfolders(&ring))
            .map(IdentityFolder::at)
            .collect();
        folders.sort_by(|a, b| a.path.cmp(&b.path));
        let mut found = Identities::default();
        for folder in folders {
            match folder.read_identity() {
                Some(file) => found.logged_in.push(Identity { folder, file }),
                None if folder.identity_file().exists() => found.broken.push(folder),
                None => {}
            }
        }
        found
    }

    /// The folder of the identity that logged in last, where it has not logged out.
    pub(crate) fn current(&self) -> Option<IdentityFolder> {
        let text = fs::read_to_string(self.current_file()).ok()?;
        let (ring, user) = text.trim_end().split_once(' ')?;
        Some(self.folder(ring.parse().ok()?, &user.parse().ok()?))
    }

    /// Makes an identity the current one.
    pub(crate) fn set_current(&self, ring: RingId, user: &UserName) -> Result<(), Failure> {
        let file = self.current_file();
        replace(&file, &format!("{ring} {}\n", user.folded()))
            .map_err(|error| Failure::io(file.display(), &error))
    }

    /// Forgets the current identity, if it is that of `folder`.
    pub(crate) fn clear_current(&self, folder: &IdentityFolder) {
        if self
            .current()
            .is_some_and(|current| current.path == folder.path)
        {
            let _ = fs::remove_file(self.current_file());
        }
    }

    /// The tracker that answered last, where it was not the first of its list.
    pub(crate) fn good_tracker(&self) -> Option<TrackerAddr> {
        let text = fs::read_to_string(self.good_tracker_file()).ok()?;
        text.trim_end().parse().ok()
    }

    /// Has the next command begin with this tracker. One that does not learn of it begins with another, and finds
    /// this one too.
    pub(crate) fn set_good_tracker(&self, tracker: &TrackerAddr) {
        let _ = replace(&self.good_tracker_file(), &format!("{tracker}\n"));
    }

    /// Waits until no other command starts or removes background peers of this home; released on drop. Cancel safe:
    /// what nobody waits for any more is released as soon as it is there.
    pub(crate) async fn lock(&self) -> Result<File, Failure> {
        let home = self.clone();
        // Ctrl-C has to be heard meanwhile.
        let locking = tokio::task::spawn_blocking(move || home.lock_blocking());
        locking.await.unwrap_or_else(|panicked| {
            let home = self.path.display();
            Err(Failure::failed(format!("cannot lock {home}: {panicked}")))
        })
    }

    fn lock_blocking(&self) -> Result<File, Failure> {
        let path = self.path.join("lock");
        let failed = |error| Failure::io(format!("cannot lock {}", path.display()), &error);
        create_private(&self.path).map_err(|error| {
            Failure::io(
                format!("cannot create the home {}", self.path.display()),
                &error,
            )
        })?;
        // Somebody else may have made it since it was looked for.
        self.check_guarded()?;
        open_lock(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(failed)
    }

    fn current_file(&self) -> PathBuf {
        self.path.join("current")
    }

    fn good_tracker_file(&self) -> PathBuf {
        self.path.join("good_tracker")
    }
}

/// What a home has of identities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    pub(crate) logged_in: Vec<Identity>,
    /// The folders whose identity file cannot be read.
    pub(crate) broken: Vec<IdentityFolder>,
}

/// An identity that is logged in.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) folder: IdentityFolder,
    pub(crate) file: IdentityFile,
}

/// The folder of one identity: the library keeps its key and database in it, and the command line what follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IdentityFolder {
    path: PathBuf,
}

impl IdentityFolder {
    /// The folder at `path`, as a background peer was told it.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates it, 0700; says whether it was new.
    pub(crate) fn create(&self) -> Result<bool, Failure> {
        let is_new = !self.path.exists();
        create_private(&self.path).map_err(|error| {
            Failure::io(format!("cannot create {}", self.path.display()), &error)
        })?;
        Ok(is_new)
    }

    /// Removes it with all that is in it, and the ring's folder too if it is empty then.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(ring) = self.path.parent() {
            let _ = fs::remove_dir(ring);
        }
    }

    /// Takes the lock that the background peer of this folder holds while it lives, and writes its own process id
    /// into it. Blocks until it is free; released on drop.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let mut file = open_lock(&self.lock_file())?;
        file.lock()?;
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// The process that holds the lock of this folder, if one does.
    pub(crate) fn lock_holder(&self) -> io::Result<Option<i32>> {
        match open_lock(&self.lock_file())?.try_lock() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(fs::read_to_string(self.lock_file())?.parse().ok()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Who is logged in here, if anyone.
    pub(crate) fn read_identity(&self) -> Option<IdentityFile> {
        fs::read_to_string(self.identity_file()).ok()?.parse().ok()
    }

    /// Records that somebody is logged in here.
    pub(crate) fn write_identity(&self, identity: &IdentityFile) -> io::Result<()> {
        replace(&self.identity_file(), &identity.to_string())
    }

    /// Records that nobody is logged in here any more.
    pub(crate) fn remove_identity(&self) -> io::Result<()> {
        match fs::remove_file(self.identity_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(crate) fn identity_file(&self) -> PathBuf {
        self.path.join("identity")
    }
}

/// The decision of [`Home::check_guarded`], by the owner of the folder and its mode.
fn check_guarded(path: &Path, owner: u32, mode: u32) -> Result<(), Failure> {
    let shown = path.display();
    if owner != rustix::process::geteuid().as_raw() {
        let message = format!(
            "the home {shown} belongs to another user, who could replace what is in it; nothing was done"
        );
        return Err(Failure::failed(message).hint(format!(
            "choose a folder of yours with --home, or have this one made yours (chown) and yours alone: chmod 700 {shown}"
        )));
    }
    if mode & OTHERS_WRITE != 0 {
        let message = format!(
            "other users may write to the home {shown} and so replace what is in it; nothing was done"
        );
        return Err(Failure::failed(message).hint(format!(
            "choose another folder with --home, or make this one yours alone: chmod 700 {shown}"
        )));
    }
    Ok(())
}

/// The bits of a mode that let the group and all others write.
const OTHERS_WRITE: u32 = 0o022;

/// Creates a folder and its parents, for this user alone.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Puts `text` in place of the file, or fails and leaves it as it was.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_private(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn alice() -> (RingId, UserName) {
        (RingId::from_bytes([7; 32]), UserName::new("Alice").unwrap())
    }

    fn logged_in(home: &Home, ring: RingId, user: &UserName) -> IdentityFolder {
        let folder = home.folder(ring, user);
        folder.create().unwrap();
        let file = IdentityFile {
            user: user.clone(),
            ring,
            trackers: vec!["127.0.0.1:9000".parse().unwrap()],
        };
        folder.write_identity(&file).unwrap();
        folder
    }

    #[test]
    fn an_identity_is_logged_in_as_long_as_its_file_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(&temp.path().join("new"))).unwrap();
        assert!(home.identities().logged_in.is_empty());
        let (ring, user) = alice();
        let folder = logged_in(&home, ring, &user);
        let names: Vec<_> = home
            .identities()
            .logged_in
            .into_iter()
            .map(|identity| identity.file.user.to_string())
            .collect();
        assert_eq!(names, ["Alice"]);
        let bob = home.folder(ring, &UserName::new("Bob").unwrap());
        bob.create().unwrap();
        fs::write(bob.identity_file(), "p2pshare identity 1\nuser").unwrap();
        let found = home.identities();
        assert_eq!(
            (found.logged_in.len(), found.broken),
            (1, vec![bob.clone()])
        );
        bob.remove();
        assert!(folder.path().ends_with(format!("{ring}/alice")));
        folder.remove_identity().unwrap();
        folder.remove_identity().unwrap();
        assert!(home.identities().logged_in.is_empty());
    }

    #[test]
    fn folders_are_for_their_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(&temp.path().join("new"))).unwrap();
        let (ring, user) = alice();
        assert!(home.folder(ring, &user).create().unwrap());
        assert!(!home.folder(ring, &user).create().unwrap());
        for folder in [home.path(), home.folder(ring, &user).path()] {
            assert_eq!(
                fs::metadata(folder).unwrap().permissions().mode() & 0o777,
                0o700
            );
        }
    }

    #[test]
    fn a_home_that_others_can_write_to_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(&temp.path().join("home"))).unwrap();
        home.check_guarded().unwrap();
        drop(home.lock_blocking().unwrap());
        for (mode, is_guarded) in [
            (0o700, true),
            (0o755, true),
            (0o720, false),
            (0o702, false),
            (0o1777, false),
        ] {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(home.check_guarded().is_ok(), is_guarded, "{mode:o}");
            assert_eq!(home.lock_blocking().is_ok(), is_guarded, "{mode:o}");
        }
        // Not for what is behind a link either.
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        assert!(Home::locate(Some(&link)).unwrap().check_guarded().is_err());
        let me = rustix::process::geteuid().as_raw();
        check_guarded(home.path(), me, 0o40700).unwrap();
        let refused = check_guarded(home.path(), me + 1, 0o40700).unwrap_err();
        assert!(
            refused.to_string().contains("belongs to another user"),
            "{refused}"
        );
    }

    #[test]
    fn the_current_identity_is_the_last_that_was_set() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        assert_eq!(home.current(), None);
        let (ring, user) = alice();
        let bob = UserName::new("Bob").unwrap();
        home.set_current(ring, &user).unwrap();
        home.set_current(ring, &bob).unwrap();
        assert_eq!(home.current(), Some(home.folder(ring, &bob)));
        home.clear_current(&home.folder(ring, &user));
        assert!(home.current().is_some());
        home.clear_current(&home.folder(ring, &bob));
        assert_eq!(home.current(), None);
    }

    #[test]
    fn the_tracker_that_answered_last_is_remembered() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        assert_eq!(home.good_tracker(), None);
        for addr in ["127.0.0.1:9001", "tracker.example:9000"] {
            let addr = addr.parse().unwrap();
            home.set_good_tracker(&addr);
            assert_eq!(home.good_tracker(), Some(addr));
        }
        fs::write(home.good_tracker_file(), "nonsense").unwrap();
        assert_eq!(home.good_tracker(), None);
    }

    #[test]
    fn removing_a_folder_leaves_nothing_of_an_only_identity() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(temp.path())).unwrap();
        let (ring, user) = alice();
        let folder = logged_in(&home, ring, &user);
        let bob = logged_in(&home, ring, &UserName::new("Bob").unwrap());
        folder.remove();
        assert!(bob.path().exists());
        bob.remove();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lock_says_who_holds_it() {
        let temp = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(temp.path().to_owned());
        assert_eq!(folder.lock_holder().unwrap(), None);
        let lock = folder.lock().unwrap();
        assert_eq!(
            folder.lock_holder().unwrap(),
            i32::try_from(std::process::id()).ok()
        );
        drop(lock);
        assert_eq!(folder.lock_holder().unwrap(), None);
    }

    #[test]
    fn an_empty_home_is_refused() {
        assert!(Home::locate(Some(Path::new(""))).is_err());
    }
}
