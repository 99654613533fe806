//! Where a profile's tokens are kept.

use std::fmt;
use std::path::{self, PathBuf};
use std::str::FromStr;

use reqwest_reauth::{FileStore, KeychainStore, SessionBuilder};
use serde::{Deserialize, Serialize};

use crate::profile::{Name, SERVICE};

/// The value of `--store`. Written `keychain` or `file:DIR`, in the profile too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tokens {
    #[default]
    Keychain,
    /// In clear, in a file of the profile's in this directory.
    Files(PathBuf),
}

impl Tokens {
    pub fn keep(&self, session: SessionBuilder, name: &Name) -> SessionBuilder {
        match self {
            Self::Keychain => session.store(KeychainStore::new(SERVICE, name.as_str())),
            Self::Files(directory) => {
                session.store(FileStore::new(directory.join(format!("{name}.tokens.json"))))
            }
        }
    }
}

impl FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("file:") {
            // Absolute, as the next command may run elsewhere.
            Some(directory) => {
                path::absolute(directory).map(Self::Files).map_err(|error| error.to_string())
            }
            None if text == "keychain" => Ok(Self::Keychain),
            None => Err("write keychain, or file:DIR".to_owned()),
        }
    }
}

impl TryFrom<String> for Tokens {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Tokens> for String {
    fn from(tokens: Tokens) -> Self {
        tokens.to_string()
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keychain => f.write_str("keychain"),
            // It was text when it was parsed.
            Self::Files(directory) => write!(f, "file:{}", directory.display()),
        }
    }
}
