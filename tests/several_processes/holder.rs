//! A program in the middle of a refresh, wherever a test wants it.

use std::thread;
use std::time::Duration;

use mock_server::{Fault, Hold, Route};

use crate::home::{Home, Kept};
use crate::worker::Worker;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A step of the library's own.
    Step(&'static str),
    /// Sent, and not yet handled by the server.
    Sent,
    /// Sent, and never handled: the server loses it.
    SentIntoTheVoid,
    /// The server has rotated, and not yet answered.
    Rotated,
}

/// The points of a refresh, in order.
pub fn points(kept: Kept) -> Vec<Point> {
    let journaled = match kept {
        // Its save is what makes an answer durable.
        Kept::InAFile => None,
        Kept::InTheKeychain => Some("journaled"),
    };
    let before = ["waiting", "locked", "read", "marked"].into_iter().map(Point::Step);
    let after = ["answered"].into_iter().chain(journaled).chain(["saved", "published", "unlocked"]);
    before.chain([Point::Sent, Point::Rotated]).chain(after.map(Point::Step)).collect()
}

impl Point {
    /// Whether others can't have the lock meanwhile.
    pub fn is_locked(self) -> bool {
        self != Self::Step("waiting") && self != Self::Step("unlocked")
    }

    fn wait_for_the_server(self, home: &Home) {
        if matches!(self, Self::Sent | Self::Rotated) {
            while home.server.requests(Route::Token)[0].status.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

pub struct Holder {
    pub worker: Worker,
    hold: Option<Hold>,
    point: Point,
}

impl Holder {
    /// Starts a program of `home`, which wants a token that is not over, and stops it at `point`.
    pub fn at(point: Point, home: &Home) -> Self {
        let server = &home.server;
        let hold = match point {
            Point::Step(_) => None,
            Point::Sent => Some(server.hold(Route::Token)),
            Point::SentIntoTheVoid => {
                server.on_next(Route::Token, 1, Fault::DropBefore);
                Some(server.hold(Route::Token))
            }
            Point::Rotated => Some(server.hold_answers(Route::Token)),
        };
        let mut worker = match point {
            Point::Step(step) => Worker::stopping_at(step, &home.program),
            _ => home.start(),
        };
        worker.tell("get 1");
        match (point, &hold) {
            (Point::Step(step), _) => assert_eq!(worker.line(), format!("at {step}")),
            (_, Some(hold)) => hold.arrived_blocking(1),
            (_, None) => unreachable!(),
        }
        Self { worker, hold, point }
    }

    /// As `kill -9`; what it has sent arrives all the same.
    pub fn kill(self, home: &Home) {
        self.worker.kill();
        drop(self.hold);
        self.point.wait_for_the_server(home);
    }

    /// Lets it go on from here, as soon as it runs. What it has sent is answered by then.
    pub fn release(&mut self, home: &Home) {
        match self.hold.take() {
            Some(hold) => hold.release(),
            None => self.worker.tell("go on"),
        }
        self.point.wait_for_the_server(home);
    }
}
