//! Clocks that jump, under programs that run: it changes when they refresh, and nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::worker::Worker;

/// A wall clock that the test sets. The monotonic clock goes on, as the system's does.
struct Clock {
    directory: tempfile::TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { directory: tempfile::tempdir().unwrap() };
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // Replaced, not rewritten: nobody reads half of it.
        let new = self.directory.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    fn start(&self, home: &Home) -> Worker {
        let mut launcher = Command::new("env");
        launcher
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Worker::started_by(launcher, &home.program, None)
    }
}

/// Where Debian has it.
fn library() -> PathBuf {
    let of = |entry: fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    let paths = fs::read_dir("/usr/lib").unwrap().map(|entry| of(entry.unwrap()));
    paths.into_iter().find(|path| path.exists()).expect("tests/run-all installs libfaketime")
}

async fn jumps(kept: Kept) {
    let (home, clock) = (Home::new(kept), Clock::new());
    home.log_in().await;
    let mut programs = [clock.start(&home), clock.start(&home)];
    // Where the clock goes, and how many refreshes there have been then.
    let jumps = [("+0", 0), ("+4h", 1), ("+0", 1), ("-4h", 1), ("+0", 1), ("-1d", 1), ("+1d", 2)];
    for (offset, refreshes) in jumps {
        clock.set(offset);
        for program in &mut programs {
            program.tell("get 3");
        }
        for program in &programs {
            assert_eq!(program.lines(3), ["200"; 3], "{offset}");
        }
        assert_eq!(home.exchanges(), (refreshes, refreshes, 0, 0), "{offset}");
    }
    // A refused token is refreshed whatever the clock says.
    clock.set("-1d");
    home.server.expire_access_tokens();
    for program in &mut programs {
        assert_eq!(program.get(), "200");
    }
    assert_eq!(home.exchanges(), (3, 3, 0, 0));
    assert!(home.is_logged_in().await);
}

#[tokio::test]
async fn a_clock_that_jumps_hours_or_a_day_changes_only_when_is_refreshed_with_a_file() {
    jumps(Kept::InAFile).await;
}

#[test]
fn a_clock_that_jumps_hours_or_a_day_changes_only_when_is_refreshed_with_the_keychain() {
    in_a_session(
        "clocks::a_clock_that_jumps_hours_or_a_day_changes_only_when_is_refreshed_with_the_keychain",
        async |_keychain| jumps(Kept::InTheKeychain).await,
    );
}
