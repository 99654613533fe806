//! An authorization server that rotates refresh tokens, and ends a family when one comes again.

use crate::Token;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server(Vec<Family>);

/// The tokens of one login.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Family {
    is_alive: bool,
    /// A spent token came again.
    was_reused: bool,
    /// The only number that is good.
    newest: u8,
}

impl Server {
    /// Where somebody has logged in once.
    pub(crate) fn new() -> Self {
        let mut server = Self(Vec::new());
        server.log_in();
        server
    }

    pub(crate) fn log_in(&mut self) -> Token {
        self.0.push(Family { is_alive: true, was_reused: false, newest: 0 });
        Token { login: self.0.len() as u8 - 1, generation: 0 }
    }

    /// The answer to a refresh: new tokens, or `invalid_grant`.
    pub(crate) fn refresh(&mut self, token: Token) -> Option<Token> {
        let family = &mut self.0[usize::from(token.login)];
        if family.is_alive && token.generation == family.newest {
            family.newest += 1;
            return Some(Token { generation: family.newest, ..token });
        }
        family.was_reused |= family.is_alive;
        family.is_alive = false;
        None
    }

    pub(crate) fn revoke(&mut self, login: u8) {
        self.0[usize::from(login)].is_alive = false;
    }

    pub(crate) fn is_good(&self, token: Token) -> bool {
        let family = &self.0[usize::from(token.login)];
        family.is_alive && family.newest == token.generation
    }

    pub(crate) fn was_reused(&self, login: u8) -> bool {
        self.0[usize::from(login)].was_reused
    }

    pub(crate) fn logins(&self) -> u8 {
        self.0.len() as u8
    }

    /// The good token of each living family.
    pub(crate) fn living(&self) -> impl Iterator<Item = Token> {
        let families = (0..).zip(&self.0).filter(|(_, family)| family.is_alive);
        families.map(|(login, family)| Token { login, generation: family.newest })
    }

    pub(crate) fn rotated(&self, times: u8) -> bool {
        self.0.iter().any(|family| family.newest >= times)
    }
}
