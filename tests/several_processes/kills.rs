//! Programs that are killed in the middle of a refresh: what the server saw of it decides what
//! becomes of the next one, and nothing else.

use std::time::Duration;

use mock_server::MockServer;

use crate::holder::{Holder, Point, points};
use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::worker::Worker;

/// What the next program gets, and what the server has seen by then: token requests, refreshes,
/// reuses and replays within its grace.
type Next = (&'static str, (u64, u64, u64, u64));

const RECOVERED: Next = ("200", (1, 1, 0, 0));
const REPEATED: Next = ("200", (2, 1, 0, 1));
const RESENT: Next = ("200", (2, 1, 0, 0));
const LOST: Next = ("logged out: RotationLost", (2, 1, 1, 0));

fn expected(point: Point, kept: Kept, has_grace: bool) -> Next {
    let lost = if has_grace { REPEATED } else { LOST };
    match (point, kept) {
        // Nothing was sent.
        (Point::Step("waiting" | "locked" | "read" | "marked"), _) => RECOVERED,
        // Sent once more, and rotated once.
        (Point::SentIntoTheVoid, _) => RESENT,
        // The answer was in memory alone.
        (Point::Sent | Point::Rotated | Point::Step("answered"), _) => lost,
        // It is found where it was made durable.
        (Point::Step("journaled"), Kept::InTheKeychain) => RECOVERED,
        (Point::Step("saved" | "published" | "unlocked"), _) => RECOVERED,
        (point, _) => panic!("{point:?} is not in the table"),
    }
}

async fn after_a_kill_at_every_step(kept: Kept, grace: Duration) {
    let points = points(kept).into_iter().chain([Point::SentIntoTheVoid]);
    let (mut seen, mut wanted) = (Vec::new(), Vec::new());
    for point in points {
        let home = Home::at(MockServer::builder().grace(grace).start().unwrap(), kept);
        home.log_in_long_ago().await;
        // It has read the record before anything happens to that.
        let mut next = Worker::stopping_at("waiting", &home.program);
        assert_eq!(next.get(), "at waiting");
        Holder::at(point, &home).kill(&home);
        let outcome = next.ask("go on");
        seen.push((point, outcome.clone(), home.exchanges()));
        let (expected, exchanges) = expected(point, kept, !grace.is_zero());
        wanted.push((point, expected.to_owned(), exchanges));

        // And so it stays.
        next.end();
        assert_eq!(home.is_logged_in().await, outcome == "200", "{point:?}");
        let again = if outcome == "200" { "200" } else { "logged out" };
        assert_eq!(home.start().get(), again, "{point:?}");
        assert_eq!(seen.last().unwrap().2, home.exchanges(), "{point:?}");
    }
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn after_a_kill_at_every_step_the_next_program_goes_on_from_a_file() {
    after_a_kill_at_every_step(Kept::InAFile, Duration::ZERO).await;
}

#[tokio::test]
async fn after_a_kill_at_every_step_nobody_is_logged_out_where_the_server_has_a_grace_from_a_file()
{
    after_a_kill_at_every_step(Kept::InAFile, GRACE).await;
}

#[test]
fn after_a_kill_at_every_step_the_next_program_goes_on_from_the_keychain() {
    in_a_session(
        "kills::after_a_kill_at_every_step_the_next_program_goes_on_from_the_keychain",
        async |_keychain| after_a_kill_at_every_step(Kept::InTheKeychain, Duration::ZERO).await,
    );
}

#[test]
fn after_a_kill_at_every_step_nobody_is_logged_out_where_the_server_has_a_grace_from_the_keychain()
{
    in_a_session(
        "kills::after_a_kill_at_every_step_nobody_is_logged_out_where_the_server_has_a_grace_from_the_keychain",
        async |_keychain| after_a_kill_at_every_step(Kept::InTheKeychain, GRACE).await,
    );
}

const GRACE: Duration = Duration::from_secs(60);
