//! A user, and where the programs of hers keep what they share.

use std::time::Duration;

use mock_server::{Issued, MockServer};
use tempfile::TempDir;

use crate::support::tokens;
use crate::worker::{Program, Worker, ended};

#[derive(Clone, Copy, Debug)]
pub enum Kept {
    InAFile,
    InTheKeychain,
}

pub struct Home {
    pub server: MockServer,
    pub program: Program,
    _directory: TempDir,
}

impl Home {
    pub fn new(kept: Kept) -> Self {
        Self::at(MockServer::start(), kept)
    }

    pub fn at(server: MockServer, kept: Kept) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut program = Program::at(&server);
        // Those that share a keychain are different accounts in it.
        program.account = server.origin();
        match kept {
            Kept::InAFile => program.file = Some(directory.path().join("session")),
            Kept::InTheKeychain => {
                program.state_dir = Some(directory.path().to_owned());
                // One that dozens of programs ask at once, on a busy machine, is slow and not hung.
                program.store_wait = Some(Duration::from_secs(30));
            }
        }
        Self { server, program, _directory: directory }
    }

    pub async fn log_in(&self) -> Issued {
        let issued = self.server.log_in("alice");
        self.program.session().log_in(tokens(&issued)).await.unwrap();
        issued
    }

    /// With an access token that is over.
    pub async fn log_in_long_ago(&self) -> Issued {
        let issued = self.server.log_in("alice");
        self.program.session().log_in(ended(&issued)).await.unwrap();
        issued
    }

    pub async fn is_logged_in(&self) -> bool {
        self.program.session().is_logged_in().await.unwrap()
    }

    pub fn start(&self) -> Worker {
        Worker::start(&self.program)
    }

    /// A program that doesn't wait long for its turn.
    pub fn start_impatient(&self) -> Worker {
        let lock_wait = Some(Duration::from_millis(300));
        Worker::start(&Program { lock_wait, ..self.program.clone() })
    }

    /// What the server saw: token requests, refreshes, reuses and replays within its grace.
    pub fn exchanges(&self) -> (u64, u64, u64, u64) {
        let seen = self.server.counters();
        (seen.token_requests, seen.refreshes, seen.reuses, seen.grace_replays)
    }
}
