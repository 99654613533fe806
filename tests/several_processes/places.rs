//! Where programs meet that are not told: one place for each user of the system, whatever a
//! program's environment says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::worker::{Program, Worker};

/// Homes of two users, in a password database of their own: the real ones are left alone.
struct Users {
    directory: tempfile::TempDir,
}

impl Users {
    fn new() -> Self {
        let users = Self { directory: tempfile::tempdir().unwrap() };
        let line = |user| format!("user{user}:x:{user}:{user}::{}:\n", users.home(user).display());
        fs::write(users.database(), [me(), neighbour()].map(line).concat()).unwrap();
        for user in [me(), neighbour()] {
            fs::create_dir(users.home(user)).unwrap();
        }
        users
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("passwd")
    }

    fn home(&self, user: u32) -> PathBuf {
        self.directory.path().join(user.to_string())
    }

    /// Starts a program of that user, which is told neither where to meet nor to wait long. All
    /// directories that its environment names are `elsewhere`.
    fn start(&self, user: u32, elsewhere: &Path, home: &Home, step: Option<&str>) -> Worker {
        let mut launcher = Command::new("unshare");
        // A namespace in which nothing differs but the user and the password database.
        launcher
            .args(["--user", &format!("--map-user={user}"), "--mount", "--keep-caps"])
            .args(["sh", "-c", r#"mount --bind "$0" /etc/passwd && exec "$@""#])
            .arg(self.database());
        let names = ["HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"];
        launcher.envs(names.map(|name| (name, elsewhere)));
        let lock_wait = Some(Duration::from_millis(300));
        let program = Program { state_dir: None, lock_wait, ..home.program.clone() };
        Worker::started_by(launcher, &program, step)
    }

    /// The locks in the home of that user.
    fn locks(&self, user: u32) -> Vec<String> {
        let place = self.home(user).join(".local/state/reqwest-reauth");
        let paths = fs::read_dir(place).unwrap().map(|file| file.unwrap().path());
        let locks = paths.filter(|path| path.extension().is_some_and(|kind| kind == "lock"));
        locks.map(|path| path.display().to_string()).collect()
    }
}

#[test]
fn another_home_or_xdg_directory_or_tmpdir_is_still_one_lock() {
    in_a_session(
        "places::another_home_or_xdg_directory_or_tmpdir_is_still_one_lock",
        async |_keychain| {
            let (users, home) = (Users::new(), Home::new(Kept::InTheKeychain));
            let elsewhere = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let [first, second] = &elsewhere;
            let mut first = users.start(me(), first.path(), &home, Some("locked"));
            first.log_in(&home.server.log_in("alice").json());
            home.server.expire_access_tokens();
            assert_eq!(first.get(), "at locked");
            let [lock] = users.locks(me()).try_into().unwrap();

            let outcome = users.start(me(), second.path(), &home, None).get();
            assert!(outcome.starts_with("later") && outcome.contains(&lock), "{outcome}");
            assert_eq!(first.ask("go on"), "200");
            assert_eq!(users.locks(me()), [lock]);
            for directory in elsewhere {
                assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
            }
            assert_eq!(home.exchanges(), (1, 1, 0, 0));
        },
    );
}

#[test]
fn two_users_of_one_system_have_two_locks() {
    in_a_session("places::two_users_of_one_system_have_two_locks", async |_keychain| {
        let (users, home) = (Users::new(), Home::new(Kept::InTheKeychain));
        let elsewhere = tempfile::tempdir().unwrap();
        let mut first = users.start(me(), elsewhere.path(), &home, Some("locked"));
        let tokens = home.server.log_in("alice").json();
        first.log_in(&tokens);
        home.server.expire_access_tokens();
        assert_eq!(first.get(), "at locked");

        // Has the lock, and then no keychain: that is the first one's.
        let mut second = users.start(neighbour(), elsewhere.path(), &home, None);
        let outcome = second.ask(&format!("log in {tokens}"));
        assert!(outcome.contains("the token store failed"), "{outcome}");
        assert!(!outcome.contains("another program"), "{outcome}");
        let [first, second] = [me(), neighbour()].map(|user| users.locks(user));
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second);
    });
}

/// Who runs the tests.
fn me() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

fn neighbour() -> u32 {
    me() + 1
}
