//! As many programs as a build farm or an editor with all its helpers starts.

use std::fs;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use mock_server::What;
use serde_json::Value;

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::support::steps::history;
use crate::worker::{Program, Worker, together};

/// All have found the token over before one of them has the lock.
async fn at_expiry(kept: Kept) {
    let home = Home::new(kept);
    let issued = home.log_in_long_ago().await;
    let mut programs: Vec<_> =
        (0..64).map(|_| Worker::stopping_at("waiting", &home.program)).collect();
    together(&mut programs, "get 25", "waiting");
    for program in &programs {
        assert_eq!(program.lines(25), ["200"; 25]);
    }
    assert_eq!(home.exchanges(), (1, 1, 0, 0));
    let counters = home.server.counters();
    assert_eq!((counters.api_ok, counters.api_unauthorized), (1600, 0));
    assert!(home.server.family_alive(issued.family));
    assert_eq!(history(&home.server, &issued), [What::Login, What::Rotated]);
}

#[tokio::test]
async fn sixty_four_programs_with_1600_requests_at_expiry_make_one_refresh_with_a_file() {
    at_expiry(Kept::InAFile).await;
}

#[test]
fn sixty_four_programs_with_1600_requests_at_expiry_make_one_refresh_with_the_keychain() {
    in_a_session(
        "many::sixty_four_programs_with_1600_requests_at_expiry_make_one_refresh_with_the_keychain",
        async |_keychain| at_expiry(Kept::InTheKeychain).await,
    );
}

/// The record is whole whenever somebody reads it.
#[tokio::test]
async fn eighty_programs_over_four_expiries_all_get_their_turn_within_the_bound() {
    let home = Home::new(Kept::InAFile);
    home.log_in().await;
    let lock_wait = Some(BOUND);
    let program = Program { lock_wait, ..home.program.clone() };
    let mut programs: Vec<_> = (0..80).map(|_| Worker::start(&program)).collect();
    // Its other end is dropped when this is over, however it ends.
    let (end, over) = mpsc::channel();
    let generations = thread::scope(|scope| {
        let (end, home): (Sender<()>, _) = (end, &home);
        let reader = scope.spawn(move || generations_read(home, &over));
        for _ in 0..4 {
            home.server.expire_access_tokens();
            let begun = Instant::now();
            programs.iter_mut().for_each(|program| program.tell("get 5"));
            for program in &programs {
                assert_eq!(program.lines(5), ["200"; 5]);
            }
            assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        }
        drop(end);
        reader.join().unwrap()
    });
    assert_eq!(generations.last(), Some(&4));
    assert!(generations.is_sorted(), "{generations:?}");
    assert_eq!(home.exchanges(), (4, 4, 0, 0));
    assert_eq!(home.server.counters().api_ok, 1600);
}

/// The generations of the record, as somebody sees them who reads it again and again.
fn generations_read(home: &Home, over: &Receiver<()>) -> Vec<u64> {
    let mut generations = Vec::new();
    let mut is_last = false;
    while !is_last {
        is_last = over.try_recv() == Err(TryRecvError::Disconnected);
        let record = fs::read(home.program.file.as_ref().unwrap()).unwrap();
        let record: Value = serde_json::from_slice(&record).expect("a whole record");
        generations.push(record["generation"].as_u64().unwrap());
        thread::yield_now();
    }
    generations.dedup();
    generations
}

/// One refresh takes milliseconds; a lock that starves somebody is found out by this.
const BOUND: Duration = Duration::from_secs(40);
