//! What goes wrong, done.

use std::time::{Duration, Instant};

use mock_server::{Fault, Hold, Route};

use super::crew::TICK;
use super::keychain::Keychain;
use super::plan::{Deed, Moment};
use super::said::{Order, Said};
use super::scene::Scene;
use super::story::Noted;

/// A worker that stands where it was to be, and the server's part in that.
pub struct There {
    pub worker: String,
    pub hold: Option<Hold>,
}

impl Scene {
    pub fn carry_out(&mut self, deed: Deed, keychain: &mut Keychain) {
        match deed {
            Deed::Kill(moment) => {
                let Some(there) = self.reach(moment) else { return };
                if self.crew.kill(&mut self.story, &there.worker) {
                    self.tally.count(format!("kills at {moment}"));
                    self.crew.start(&mut self.story);
                }
                self.go_on(there);
            }
            Deed::Stop(moment, time) => {
                let Some(there) = self.reach(moment) else { return };
                self.tally.count(format!("stops at {moment}"));
                if time > self.plan.lock_wait {
                    self.tally.count("stops at (longer than the others wait for the lock)");
                }
                let worker = there.worker.clone();
                self.crew.signal(&worker, "-STOP");
                self.go_on(there);
                self.listen(time);
                self.crew.signal(&worker, "-CONT");
            }
            Deed::Interrupt(moment) => {
                let Some(there) = self.reach(moment) else { return };
                self.tally.count(format!("SIGINTs at {moment}"));
                let worker = there.worker.clone();
                self.crew.signal(&worker, "-INT");
                self.go_on(there);
                self.crew.ends(&mut self.story, &worker);
                self.crew.start(&mut self.story);
            }
            Deed::Break(trouble) => {
                self.server.on_next(Route::Token, 1, trouble.fault());
                self.tally.count(format!("fault: {trouble}"));
            }
            Deed::LogOut(moment) => {
                let Some((there, place)) = self.reach_or_rest(moment) else { return };
                self.tally.count(format!("logouts at {place}"));
                self.log_out(there);
                self.log_in();
            }
            Deed::KillKeychain(moment, time) => {
                let Some((there, place)) = self.reach_or_rest(moment) else { return };
                self.tally.count(format!("keychain kills at {place}"));
                keychain.kill();
                match there {
                    Some(there) => self.go_on(there),
                    None => self.expire(),
                }
                self.listen(time);
                keychain.start();
            }
        }
    }

    /// Without a moment, no worker has to be anywhere.
    fn reach_or_rest(&mut self, moment: Option<Moment>) -> Option<(Option<There>, String)> {
        match moment {
            Some(moment) => self.reach(moment).map(|there| (Some(there), moment.to_string())),
            None => Some((None, "rest".to_owned())),
        }
    }

    /// Lets the tokens expire, and waits for a worker to be there.
    fn reach(&mut self, moment: Moment) -> Option<There> {
        let there = match moment {
            Moment::Step(step) => {
                self.crew.order_all(&Order::StopAt(step.to_owned()));
                self.expire();
                let stopped = |_: &str, said: &Said| *said == Said::Stopped(step.to_owned());
                let worker = self.crew.hear(&mut self.story, PATIENCE, stopped);
                if worker.is_none() {
                    self.crew.order_all(&Order::GoOn);
                }
                worker.map(|worker| There { worker, hold: None })
            }
            Moment::Unrotated { lost } => {
                if lost {
                    self.server.on_next(Route::Token, 1, Fault::DropBefore);
                }
                let hold = self.server.hold(Route::Token);
                self.sender(hold)
            }
            Moment::Unanswered => {
                let hold = self.server.hold_answers(Route::Token);
                self.sender(hold)
            }
            Moment::After(time) => {
                self.expire();
                self.listen(time);
                let names = self.crew.names();
                let worker = names[self.chance.below(names.len() as u64) as usize].clone();
                Some(There { worker, hold: None })
            }
        };
        if there.is_none() {
            self.story.note(Noted::Missed(moment.to_string()));
            self.tally.count(format!("not come to {moment}"));
        }
        there
    }

    /// Who has sent the refresh token that is held.
    fn sender(&mut self, hold: Hold) -> Option<There> {
        self.expire();
        let end = Instant::now() + PATIENCE;
        while hold.count() == 0 {
            if Instant::now() > end {
                return None;
            }
            self.listen(TICK);
        }
        let worker = self.server.requests(Route::Token).last()?.header("user-agent")?.to_owned();
        Some(There { worker, hold: Some(hold) })
    }

    pub fn go_on(&mut self, there: There) {
        drop(there.hold);
        self.crew.order_all(&Order::GoOn);
    }
}

/// For a moment that may not come, since the workers wait before the next try.
const PATIENCE: Duration = Duration::from_secs(5);
