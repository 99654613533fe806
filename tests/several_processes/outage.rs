//! An authorization server that fails everybody: one program asks it, and all are told.

use std::time::{Duration, Instant};

use mock_server::{Fault, Route};

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::worker::{Worker, together};

/// All wait for their turn before one of them has asked the server, which answers `fault` to
/// `asked` requests, and is back after that.
async fn all_are_told(kept: Kept, fault: &Fault, asked: u64) {
    let home = Home::new(kept);
    home.log_in_long_ago().await;
    home.server.on_next(Route::Token, asked as usize, fault.clone());
    let mut programs: Vec<_> =
        (0..64).map(|_| Worker::stopping_at("waiting", &home.program)).collect();
    together(&mut programs, "get 1", "waiting");
    let waits: Vec<_> = programs.iter().map(|program| wait_told(&program.line())).collect();
    assert_eq!(home.exchanges(), (asked, 0, 0, 0));

    tokio::time::sleep(*waits.iter().max().unwrap()).await;
    programs.iter_mut().for_each(|program| program.tell("get 1"));
    let outcomes: Vec<_> = programs.iter().map(Worker::line).collect();
    assert_eq!(outcomes, vec!["200"; 64]);
    assert_eq!(home.exchanges(), (asked + 1, 1, 0, 0));
}

/// How long a program was told to wait before its next try.
fn wait_told(outcome: &str) -> Duration {
    let wait = outcome.strip_prefix("later, in ").and_then(|rest| rest.split_once(" ms: "));
    let (millis, _) = wait.unwrap_or_else(|| panic!("{outcome}"));
    // Cut to whole ones.
    Duration::from_millis(millis.parse::<u64>().unwrap() + 1)
}

async fn in_every_outage(kept: Kept) {
    let busy = Fault::status(429).header("retry-after", "2");
    // Where the token may have been spent, it is sent once more at once.
    for (fault, asked) in [(Fault::DropBefore, 2), (Fault::status(503), 2), (busy, 1)] {
        all_are_told(kept, &fault, asked).await;
    }
}

#[tokio::test]
async fn in_an_outage_one_of_sixty_four_programs_asks_and_all_are_told_with_a_file() {
    in_every_outage(Kept::InAFile).await;
}

#[test]
fn in_an_outage_one_of_sixty_four_programs_asks_and_all_are_told_with_the_keychain() {
    in_a_session(
        "outage::in_an_outage_one_of_sixty_four_programs_asks_and_all_are_told_with_the_keychain",
        async |_keychain| in_every_outage(Kept::InTheKeychain).await,
    );
}

#[tokio::test]
async fn sixty_four_programs_wait_together_for_a_server_that_does_not_answer() {
    let home = Home::new(Kept::InAFile);
    home.log_in_long_ago().await;
    let held = home.server.hold(Route::Token);
    // What it has not answered it has not done either.
    home.server.on_next(Route::Token, 2, Fault::DropBefore);
    let mut programs: Vec<_> =
        (0..64).map(|_| Worker::stopping_at("waiting", &home.program)).collect();
    let begun = Instant::now();
    together(&mut programs, "get 1", "waiting");
    for program in &programs {
        wait_told(&program.line());
    }
    assert!(begun.elapsed() < TWO_EXCHANGES, "{:?}", begun.elapsed());
    held.release();
    assert_eq!(home.exchanges(), (2, 0, 0, 0));
    assert!(home.is_logged_in().await);
}

/// One, with its repetition, is given up after 40 seconds.
const TWO_EXCHANGES: Duration = Duration::from_secs(80);
