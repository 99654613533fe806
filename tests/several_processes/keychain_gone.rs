//! A keychain that locks or dies while the new tokens are on their way to it.

use mock_server::{ExpiresIn, MockServer, Route};

use crate::home::{Home, Kept};
use crate::keychain::{Keychain, in_a_session};
use crate::worker::SERVICE;

#[derive(Clone, Copy, Debug)]
enum End {
    Locks,
    Dies,
}

impl End {
    fn come(self, keychain: &mut Keychain) {
        match self {
            Self::Locks => keychain.lock(),
            Self::Dies => keychain.kill(),
        }
    }

    fn pass(self, keychain: &mut Keychain) {
        match self {
            Self::Locks => keychain.unlock(),
            Self::Dies => keychain.start(),
        }
    }
}

/// Each of so many refreshes finds the keychain gone when its answer is there: of one program, or
/// of one after the other.
async fn gone_at(end: End, refreshes: u64, one_program: bool, keychain: &mut Keychain) {
    // Each request needs a refresh.
    let soon_over = ExpiresIn::Value(serde_json::json!(0.001));
    let server = MockServer::builder().expires_in(soon_over).start().unwrap();
    let home = Home::at(server, Kept::InTheKeychain);
    let issued = home.log_in_long_ago().await;
    let mut program = home.start();
    for _ in 0..refreshes {
        let rotated = home.server.hold_answers(Route::Token);
        program.tell("get 1");
        rotated.arrived_blocking(1);
        end.come(keychain);
        rotated.release();
        assert_eq!(program.line(), "200", "{end:?}");
        if !one_program {
            std::mem::replace(&mut program, home.start()).end();
        }
        end.pass(keychain);
    }
    assert_eq!(home.exchanges(), (refreshes, refreshes, 0, 0));
    let status = home.program.session().status().await.unwrap();
    assert_eq!(status.refreshes(), refreshes, "another program knows the newest tokens");

    assert_eq!(program.get(), "200");
    assert_eq!(home.exchanges(), (refreshes + 1, refreshes + 1, 0, 0));
    program.end();
    let current = home.server.current_refresh_token(issued.family).unwrap();
    assert!(is_in(keychain, &home, &current), "the keychain has caught up");
    assert!(home.is_logged_in().await);
}

fn is_in(keychain: &Keychain, home: &Home, token: &str) -> bool {
    let entries = keychain.entries(SERVICE);
    let mine = entries.iter().filter(|(user, _)| *user == home.program.account);
    { mine }.any(|(_, record)| record.windows(token.len()).any(|part| part == token.as_bytes()))
}

async fn for_one_refresh_and_for_ten(end: End, keychain: &mut Keychain) {
    for (refreshes, one_program) in [(1, true), (10, true), (10, false)] {
        gone_at(end, refreshes, one_program, keychain).await;
    }
}

#[test]
fn a_keychain_that_locks_after_the_rotation_loses_nothing_once_or_ten_times() {
    in_a_session(
        "keychain_gone::a_keychain_that_locks_after_the_rotation_loses_nothing_once_or_ten_times",
        async |mut keychain| for_one_refresh_and_for_ten(End::Locks, &mut keychain).await,
    );
}

#[test]
fn a_keychain_that_dies_after_the_rotation_loses_nothing_once_or_ten_times() {
    in_a_session(
        "keychain_gone::a_keychain_that_dies_after_the_rotation_loses_nothing_once_or_ten_times",
        async |mut keychain| for_one_refresh_and_for_ten(End::Dies, &mut keychain).await,
    );
}
