//! What is going to happen in a run.

use std::fmt;
use std::time::Duration;

use mock_server::Fault;

use super::chance::Chance;

#[derive(Debug)]
pub struct Plan {
    pub in_keychain: bool,
    /// Whether the server forgives a spent refresh token for [`GRACE`].
    pub grace: bool,
    /// Whether the workers know that.
    pub says_grace: bool,
    pub workers: u64,
    pub lock_wait: Duration,
    pub deeds: Vec<Deed>,
}

/// One thing that goes wrong, or that somebody does.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Kill(Moment),
    /// SIGSTOP, so much later SIGCONT.
    Stop(Moment, Duration),
    Interrupt(Moment),
    Break(Trouble),
    /// A logout by one worker while another one is there, and a login by a third.
    LogOut(Option<Moment>),
    /// The keychain's daemon is killed while a worker is there, and is back so much later.
    KillKeychain(Option<Moment>, Duration),
}

/// How far the refresh has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As the library traces it.
    Step(&'static str),
    /// The server has the request, and does not handle it while its sender lives: after that it
    /// does, or the request is lost.
    Unrotated { lost: bool },
    /// The server has rotated, and does not answer while the sender lives.
    Unanswered,
    /// So long after the tokens have expired.
    After(Duration),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Step(step) => step,
            Self::Unrotated { .. } => UNROTATED,
            Self::Unanswered => UNANSWERED,
            Self::After(_) => ANY_TIME,
        })
    }
}

/// What the server does to the next refresh.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    LosesRequest,
    LosesAnswer,
    HalvesAnswer,
    TooMany,
    Failed,
    Unavailable,
}

impl Trouble {
    pub fn fault(self) -> Fault {
        match self {
            Self::LosesRequest => Fault::DropBefore,
            Self::LosesAnswer => Fault::DropAfter,
            Self::HalvesAnswer => Fault::DropHalf,
            Self::TooMany => Fault::status(429).header("retry-after", "1"),
            Self::Failed => Fault::status(500),
            Self::Unavailable => Fault::status(503),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LosesRequest => "request lost",
            Self::LosesAnswer => "answer lost",
            Self::HalvesAnswer => "answer cut off",
            Self::TooMany => "429",
            Self::Failed => "500",
            Self::Unavailable => "503",
        })
    }
}

impl Plan {
    pub fn of(seed: u64, run: u64) -> Self {
        let mut chance = Chance::of(seed, run);
        // All four kinds in turn, two runs each: those of one kind kill at one moment after another.
        let (in_keychain, grace) = (run % 2 == 1, run / 2 % 2 == 1);
        let moments = moments(in_keychain);
        let nth = |kill: u64| moments[((run / 4 * KILLS + kill) % moments.len() as u64) as usize];
        let mut deeds: Vec<_> =
            (0..KILLS).map(|kill| Deed::Kill(at(nth(kill), &mut chance))).collect();
        let any = |chance: &mut Chance| at(chance.pick(&moments), chance);
        deeds.push(Deed::Break(chance.pick(&TROUBLES)));
        let moment = any(&mut chance);
        deeds.push(match chance.below(3) {
            0 => Deed::Interrupt(moment),
            _ => Deed::Stop(moment, chance.millis(50, 900)),
        });
        if chance.one_in(3) {
            deeds.push(Deed::LogOut(None));
        } else if chance.one_in(2) {
            deeds.push(Deed::LogOut(Some(any(&mut chance))));
        }
        if in_keychain && chance.one_in(2) {
            let moment = chance.one_in(2).then(|| any(&mut chance));
            deeds.push(Deed::KillKeychain(moment, chance.millis(0, 300)));
        }
        for last in (1..deeds.len()).rev() {
            deeds.swap(last, chance.below(last as u64 + 1) as usize);
        }
        Self {
            in_keychain,
            grace,
            says_grace: grace && chance.one_in(2),
            workers: 2 + chance.below(3),
            lock_wait: chance.millis(200, 2_000),
            deeds,
        }
    }
}

/// The moments to be at, in order.
pub fn moments(in_keychain: bool) -> Vec<&'static str> {
    let mut moments =
        vec!["waiting", "locked", "read", "marked", UNROTATED, UNANSWERED, "answered"];
    if in_keychain {
        moments.push("journaled");
    }
    moments.extend(["saved", "published", "unlocked", ANY_TIME]);
    moments
}

fn at(name: &'static str, chance: &mut Chance) -> Moment {
    match name {
        UNROTATED => Moment::Unrotated { lost: chance.one_in(2) },
        UNANSWERED => Moment::Unanswered,
        ANY_TIME => Moment::After(chance.millis(0, 150)),
        step => Moment::Step(step),
    }
}

pub const UNROTATED: &str = "sent, not rotated";
pub const UNANSWERED: &str = "rotated, unanswered";
pub const ANY_TIME: &str = "any time";

/// The server's window, where it has one.
pub const GRACE: Duration = Duration::from_secs(10);

/// In each run.
const KILLS: u64 = 2;

const TROUBLES: [Trouble; 6] = [
    Trouble::LosesRequest,
    Trouble::LosesAnswer,
    Trouble::HalvesAnswer,
    Trouble::TooMany,
    Trouble::Failed,
    Trouble::Unavailable,
];
