//! The refresh transaction between processes, as a model: every state that it can come to is
//! looked at, however the steps of two processes fall, and wherever one of them is killed.
//!
//! It is written after `src/refresh.rs`, `src/session/{login,logout,reading}.rs` and
//! `src/store/kept.rs`; each step names the function that it stands for. What it leaves out: time,
//! the interleavings within a process (see `src/refresh/flight/interleavings.rs`), and what the
//! operating system promises (a lock that ends with its process, a rename that is whole). Also what
//! comes of a disk on which nothing can be noted: a mark or a journal that fails stops a refresh, or
//! leaves its tokens in memory until they are saved (`Unsaved`), and a clearing that fails stays due.
//!
//! A token is a login and a number; the server takes each number once, and one that comes again
//! ends the login's family.

mod process;
mod server;
mod world;

pub use process::{Process, Step};
pub use server::Server;
pub use world::{Action, Limits, Rule, Token, World};

use stateright::{Model, Property};

/// What is checked: with these limits, and with one rule broken or none.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub limits: Limits,
    pub broken: Option<Rule>,
}

impl Model for Transaction {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.limits)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(action, self.broken);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOCKED, |_, world: &World| !world.faults.sent_without_lock),
            Property::always(MARKED, |_, world: &World| !world.faults.sent_without_mark),
            Property::always(DURABLE, |_, world: &World| !world.faults.handed_out_before_durable),
            Property::always(SENT_ONCE, |_, world: &World| !world.faults.sent_again),
            Property::always(SERVERS_WORD, |_, world: &World| !world.faults.ended_by_mistake),
            Property::always(LOGOUT_WINS, |_, world: &World| !world.faults.handed_out_after_logout),
            Property::always(SEEN, |_, world: &World| !world.faults.acted_unseen),
            Property::always(OWN_LOGIN, |_, world: &World| !world.faults.crossed_logins),
            Property::always(WRITES, |_, world: &World| !world.faults.wrote_without_lock),
            Property::always(LIVING, |_, world: &World| !world.faults.revoked_a_living_one),
            Property::always(NOTHING_LOST, |_, world: &World| world.nothing_is_lost()),
            Property::sometimes("a refresh succeeds", |_, world: &World| world.server.rotated(1)),
            Property::sometimes("two in a row", |_, world: &World| world.server.rotated(2)),
            Property::sometimes("a logout returns", |_, world: &World| world.has_logged_out()),
        ]
    }
}

/// The invariants, by the numbers that they have in the design of the transaction.
pub const LOCKED: &str = "I1: no refresh token is sent without the lock";
pub const MARKED: &str = "I2: none is sent before it is marked";
pub const DURABLE: &str =
    "I3: no tokens are handed out before they are durable, while the disk works";
pub const SENT_ONCE: &str = "I4: none is sent again, but where its answer may have been lost";
pub const SERVERS_WORD: &str = "I5: only the server's word ends a session";
pub const LOGOUT_WINS: &str = "I6: after a logout nothing of it is handed out";
pub const SEEN: &str =
    "I7: after the lock is taken, what is stored is looked at before a token is sent";
pub const OWN_LOGIN: &str = "I8: no login is written over, or adopted, by another's refresh";
pub const WRITES: &str = "I9: nothing is written to the store without the lock";
pub const LIVING: &str = "I10: only what was logged out is revoked";
pub const NOTHING_LOST: &str = "no session is lost beyond the gap that nobody can close";
