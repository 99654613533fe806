//! What went wrong, for people and for scripts.

use std::error::Error as StdError;

use serde_json::json;

use crate::exit::Exit;
use crate::output;

/// Why a command or a request came to nothing.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub kind: Kind,
    pub exit: Exit,
    pub message: String,
    /// What to do next.
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    LoggedOut,
    LoginRequired,
    Timeout,
    Transient,
    Store,
    Configuration,
    Network,
    Interrupted,
    Other,
}

impl Trouble {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let exit = match kind {
            Kind::LoggedOut | Kind::LoginRequired => Exit::LoginNeeded,
            Kind::Timeout | Kind::Transient | Kind::Store | Kind::Network => Exit::Unavailable,
            Kind::Configuration => Exit::Usage,
            Kind::Interrupted => Exit::Interrupted,
            Kind::Other => Exit::Failure,
        };
        Self { kind, exit, message: message.into(), advice: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration, message)
    }

    /// Something that the user can put right failed: `what` with its causes.
    pub fn unusable(what: &str, cause: impl StdError) -> Self {
        Self::usage(format!("{what}: {}", chain(&cause)))
    }

    /// The same, with nothing to put right but time.
    pub fn unavailable(what: &str, cause: impl StdError) -> Self {
        Self::new(Kind::Store, format!("{what}: {}", chain(&cause)))
    }

    pub fn other(what: &str, cause: impl StdError) -> Self {
        Self::new(Kind::Other, format!("{what}: {}", chain(&cause)))
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Tells it on stderr.
    pub fn warn(&self) {
        eprintln!("cli: {}", self.message);
        if let Some(advice) = &self.advice {
            eprintln!("     {advice}");
        }
    }

    /// Tells it as the result of the whole command.
    pub fn tell(&self, as_json: bool) -> Exit {
        self.warn();
        if as_json {
            let error = json!({
                "kind": self.kind.name(),
                "message": self.message,
                "advice": self.advice,
                "exit": self.exit.code(),
            });
            // What can't be written to stdout has been told on stderr.
            let _ = output::print(json!({ "error": error }));
        }
        self.exit
    }
}

impl Kind {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::LoginRequired => "login_required",
            Self::Timeout => "timeout",
            Self::Transient => "transient",
            Self::Store => "store",
            Self::Configuration => "configuration",
            Self::Network => "network",
            Self::Interrupted => "interrupted",
            Self::Other => "other",
        }
    }
}

impl From<reqwest_reauth::Error> for Trouble {
    fn from(error: reqwest_reauth::Error) -> Self {
        Self::of_session(&error)
    }
}

impl From<reqwest_middleware::Error> for Trouble {
    fn from(error: reqwest_middleware::Error) -> Self {
        match (reqwest_reauth::Error::find(&error), &error) {
            (Some(found), _) => Self::of_session(found),
            (None, reqwest_middleware::Error::Reqwest(error)) => Self::of_request(error),
            (None, reqwest_middleware::Error::Middleware(_)) => {
                Self::new(Kind::Other, chain(&error))
            }
        }
    }
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        Self::of_request(&error)
    }
}

impl Trouble {
    fn of_session(error: &reqwest_reauth::Error) -> Self {
        let kind = match error {
            e if e.is_logged_out() => Kind::LoggedOut,
            e if e.is_store() => Kind::Store,
            e if e.is_login_required() || e.is_denied() => Kind::LoginRequired,
            e if e.is_timeout() => Kind::Timeout,
            e if e.is_configuration() => Kind::Configuration,
            e if e.is_transient() => Kind::Transient,
            _ => Kind::Other,
        };
        let mut trouble = Self::new(kind, chain(error));
        if kind == Kind::Store && error.is_login_required() {
            // What is stored is damaged or lost: a login replaces it.
            trouble.exit = Exit::LoginNeeded;
        }
        match error.retry_after() {
            Some(wait) => {
                trouble.with_advice(format!("try again in {} s", wait.as_secs_f64().ceil()))
            }
            None => trouble,
        }
    }

    fn of_request(error: &reqwest::Error) -> Self {
        let kind = if error.is_timeout() {
            Kind::Timeout
        } else if error.is_builder() {
            Kind::Configuration
        } else if error.is_redirect() {
            Kind::Other
        } else {
            Kind::Network
        };
        Self::new(kind, chain(error))
    }
}

/// The error and its causes, without what was said already.
fn chain(error: &dyn StdError) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let clause = error.to_string();
        if !said.contains(&clause) {
            said = format!("{said}: {clause}");
        }
        cause = error.source();
    }
    said
}
