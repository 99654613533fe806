//! Programs that stand still in the middle of a refresh, as with Ctrl-Z or a closed lid, for
//! longer than others wait for their turn.

use std::thread;
use std::time::Duration;

use crate::holder::{Holder, Point, points};
use crate::home::{Home, Kept};
use crate::keychain::in_a_session;

async fn stopped_at_every_step(kept: Kept) {
    for point in points(kept) {
        let home = Home::new(kept);
        home.log_in_long_ago().await;
        let mut holder = Holder::at(point, &home);
        holder.worker.stop();
        holder.release(&home);

        let exchanges = home.exchanges();
        let mut other = home.start_impatient();
        let outcome = other.get();
        if point.is_locked() && !is_durable(point) {
            assert!(
                outcome.starts_with("later") && outcome.contains("another program"),
                "{point:?}: {outcome}"
            );
            assert_eq!(home.exchanges(), exchanges, "{point:?}");
        } else {
            assert_eq!(outcome, "200", "{point:?}");
        }

        holder.worker.go_on();
        assert_eq!(holder.worker.line(), "200", "{point:?}");
        assert_eq!(home.start().get(), "200", "{point:?}");
        assert_eq!(home.exchanges(), (1, 1, 0, 0), "{point:?}");
        holder.worker.end();
    }
}

/// What is durable, others take without a turn.
fn is_durable(point: Point) -> bool {
    ["journaled", "saved", "published"].map(Point::Step).contains(&point)
}

#[tokio::test]
async fn a_program_that_is_stopped_at_any_step_spends_nothing_twice_when_it_goes_on_with_a_file() {
    stopped_at_every_step(Kept::InAFile).await;
}

#[test]
fn a_program_that_is_stopped_at_any_step_spends_nothing_twice_when_it_goes_on_with_the_keychain() {
    in_a_session(
        "stops::a_program_that_is_stopped_at_any_step_spends_nothing_twice_when_it_goes_on_with_the_keychain",
        async |_keychain| stopped_at_every_step(Kept::InTheKeychain).await,
    );
}

#[tokio::test]
async fn an_answer_that_came_while_the_program_was_stopped_for_seconds_is_taken() {
    let home = Home::new(Kept::InAFile);
    home.log_in_long_ago().await;
    let mut holder = Holder::at(Point::Rotated, &home);
    holder.worker.stop();
    holder.release(&home);
    thread::sleep(STOPPED);
    holder.worker.go_on();
    assert_eq!(holder.worker.line(), "200");
    assert_eq!(home.exchanges(), (1, 1, 0, 0));
}

/// Longer than a store may take, or a logout waits for its turn.
const STOPPED: Duration = Duration::from_secs(6);
