//! How the program ends.

use std::process::ExitCode;

/// How a command ended, the more urgent the greater: of many requests, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All went well: each request was answered with a status below 400.
    Success,
    /// A request was answered with 400 or above, or something failed that nobody expected.
    Failure,
    /// The keychain, a lock, the network or a server is not to be had now: try again.
    Unavailable,
    /// The arguments, a file or the settings have to be put right.
    Usage,
    /// Only a login helps.
    LoginNeeded,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::LoginNeeded => 3,
            Self::Unavailable => 4,
            // As a shell tells SIGINT.
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The same for people, below the help.
pub const TABLE: &str = "\
Exit codes:
    0  each request was answered with a status below 400
    1  one was not, or something unexpected failed
    2  the arguments or the settings are wrong
    3  a login is needed
    4  not now: the keychain, a lock, the network or a server; try again
  130  Ctrl-C
Of many requests the most urgent counts: 3, then 2, then 4, then 1.

Environment:
  REAUTH_TOKEN  an access token to use in place of the profile's login";
