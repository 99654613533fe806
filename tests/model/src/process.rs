//! One process, and how far it has come.

use crate::Token;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// What it would send requests with.
    pub(crate) memory: Option<Token>,
    pub(crate) step: Step,
    /// A write to the store that was given up, and holds the lock until it lands (I9).
    pub(crate) late: Option<Token>,
    /// It has read what is stored since it has the lock (I7).
    pub(crate) has_looked: bool,
}

/// What it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Idle,
    /// `Locked::wait`, for a refresh.
    Wait,
    /// `Core::read_store_locked`.
    Read,
    /// `Kept::catch_up`: the journal's, which the store has not taken yet. Then they are sent, or
    /// had only to be known.
    CatchUp {
        current: Token,
        sends: bool,
    },
    /// `Kept::mark`.
    Mark(Token),
    /// `exchange`, with how often it was sent already: not yet or, after a lost answer, once.
    Send {
        token: Token,
        before: u8,
        was_marked: bool,
    },
    /// `Kept::keep`.
    Keep {
        new: Token,
    },
    /// `Kept::commit`.
    Commit {
        new: Token,
    },
    /// `commit`: `Core::is_out` once more and, at once, `State::advance`. A logout that has noted its
    /// end waits for the lock for seconds before it returns.
    Publish {
        new: Token,
    },
    /// `rejected`: `Kept::note_refused`.
    NoteRefused(Token),
    /// `rejected`: looks again, and `over`.
    Rejected(Token),
    /// `Core::settle`, of what the user has logged out.
    Settle {
        login: u8,
        newest: Option<Token>,
    },
    /// `Locked::leave`.
    Leave,
    /// `Core::note_logouts`.
    NoteOut(u8),
    /// `Locked::wait`, for a logout.
    WaitToSettle(u8),
    /// `Locked::wait`, for a login with these.
    WaitToLogIn(Token),
    /// `Core::log_in_locked`.
    LogIn(Token),
    Dead,
}

impl Process {
    pub(crate) fn new(memory: Option<Token>) -> Self {
        Self { memory, step: Step::Idle, late: None, has_looked: false }
    }

    /// The tokens that only it has.
    pub(crate) fn holds(&self) -> Option<Token> {
        match self.step {
            Step::Keep { new } => Some(new),
            _ => None,
        }
    }
}
