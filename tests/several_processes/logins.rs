//! A login in one program, and another one that runs all the time.

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::support::access_tokens_sent;
use crate::support::steps::after_a_second;

async fn a_login_is_seen(kept: Kept) {
    let home = Home::new(kept);
    let mut running = home.start();
    assert_eq!(running.get(), "logged out");
    let mut elsewhere = home.start();
    let alice = home.server.log_in("alice");
    elsewhere.log_in(&alice.json());
    after_a_second().await;
    assert_eq!(running.get(), "200");

    // Another one in its place ends it where the server says so.
    let bob = home.server.log_in("bob");
    elsewhere.log_in(&bob.json());
    home.server.revoke_family(alice.family);
    assert_eq!(running.get(), "logged out: LoggedOutElsewhere");
    assert_eq!(running.get(), "200");
    let sent = [alice.access_token.clone(), alice.access_token, bob.access_token];
    assert_eq!(access_tokens_sent(&home.server), sent);
    assert_eq!(home.exchanges(), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_login_is_seen_by_a_program_that_runs_all_the_time_with_a_file() {
    a_login_is_seen(Kept::InAFile).await;
}

#[test]
fn a_login_is_seen_by_a_program_that_runs_all_the_time_with_the_keychain() {
    in_a_session(
        "logins::a_login_is_seen_by_a_program_that_runs_all_the_time_with_the_keychain",
        async |_keychain| a_login_is_seen(Kept::InTheKeychain).await,
    );
}
