//! The beginnings and ends of logins that somebody wants.

use std::time::Duration;

use super::deeds::There;
use super::said::{Order, Said};
use super::scene::{Scene, user};
use super::story::Noted;

impl Scene {
    /// A new login by the worker whose turn it is. It may be busy, or the store may be down: then
    /// the next one has its try.
    pub fn log_in(&mut self) {
        let number = self.logins.len();
        let issued = self.server.log_in(&user(number));
        self.logins.push(issued.family);
        self.story.note(Noted::LogsIn(number));
        for attempt in 0..ATTEMPTS {
            let names = self.crew.names();
            let worker = &names[(number + attempt) % names.len()];
            self.crew.order(worker, &Order::LogIn(issued.json()));
            let mut done = false;
            let answer = |by: &str, said: &Said| {
                done |= by == worker && *said == Said::LoginDone;
                by == worker && matches!(said, Said::LoginDone | Said::LoginFailed(_))
            };
            if self.crew.hear(&mut self.story, LONG, answer).is_none() {
                break;
            }
            if done {
                self.story.note(Noted::LoggedIn(number));
                return;
            }
        }
        self.story.note(Noted::Missed(LOGIN.to_owned()));
    }

    /// By another worker than the one that is there, which goes on while that waits.
    pub fn log_out(&mut self, there: Option<There>) {
        let number = self.logins.len() - 1;
        let elsewhere = |name: &&String| there.as_ref().is_none_or(|there| there.worker != **name);
        let names = self.crew.names();
        let Some(worker) = names.iter().find(elsewhere).cloned() else { return };
        // It may stop at the same step.
        self.crew.order(&worker, &Order::GoOn);
        self.story.note(Noted::LogsOut(number));
        let mut there = there;
        for _ in 0..ATTEMPTS {
            self.crew.order(&worker, &Order::LogOut);
            let mut done = false;
            let mut answer = |by: &str, said: &Said| {
                done |= by == worker && matches!(said, Said::LogoutDone(_));
                by == worker && matches!(said, Said::LogoutDone(_) | Said::LogoutFailed(_))
            };
            let at_once = self.chance.millis(0, 300);
            let mut answered = self.crew.hear(&mut self.story, at_once, &mut answer).is_some();
            if let Some(there) = there.take() {
                drop(there.hold);
                self.crew.order_all(&Order::GoOn);
            }
            answered = answered || self.crew.hear(&mut self.story, LONG, &mut answer).is_some();
            if !answered {
                break;
            }
            if done {
                let newest = self.newest(number);
                self.story.note(Noted::LoggedOut(number, newest));
                return;
            }
        }
        self.story.note(Noted::Missed(LOGOUT.to_owned()));
    }

    /// The generation of the newest tokens of a login.
    fn newest(&self, login: usize) -> u64 {
        let history = self.server.history(self.logins[login]);
        history.iter().map(|entry| entry.generation).max().unwrap_or_default()
    }
}

pub const LOGIN: &str = "a login";
pub const LOGOUT: &str = "a logout";

/// The waits for the lock, the store and the server.
const LONG: Duration = Duration::from_secs(20);

const ATTEMPTS: usize = 10;
