//! A run: its plan, carried out.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mock_server::{FamilyId, Hold, MockServer, Route};

use crate::chance::Chance;
use crate::crew::{Crew, TICK};
use crate::judge;
use crate::keychain::Keychain;
use crate::plan::{Deed, GRACE, Moment, Plan};
use crate::said::{Order, Said};
use crate::story::{Noted, Story};
use crate::tally::Tally;
use crate::watchdog::Watchdog;
use crate::worker::Setting;

pub struct Scene {
    pub plan: Plan,
    pub server: MockServer,
    /// What the server did, a line for each request.
    pub log: Arc<Mutex<Vec<String>>>,
    pub story: Story,
    /// In order; the last one is in force.
    pub logins: Vec<FamilyId>,
    pub tally: Tally,
    crew: Crew,
    chance: Chance,
}

/// A worker that stands where it was to be, and the server's part in that.
struct There {
    worker: String,
    hold: Option<Hold>,
}

/// Plays the run and judges it. What is wrong is printed, with the story.
pub fn play(seed: u64, run: u64, keychain: &mut Keychain, watchdog: &Watchdog) -> Tally {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(seed, run, directory.path());
    let deeds = scene.plan.deeds.clone();
    watchdog.doing(format!("run {run} begins"));
    scene.begin();
    for deed in deeds {
        watchdog.doing(format!("run {run}: {deed:?}"));
        scene.story.note(Noted::Deed(format!("{deed:?}")));
        scene.carry_out(deed, keychain);
        // Now and then the next thing goes wrong before all is well again.
        if !scene.chance.one_in(4) {
            scene.recover();
        }
    }
    watchdog.doing(format!("run {run} ends"));
    scene.calm();
    let problems = judge::judge(&mut scene);
    scene.tally.count("runs");
    if !problems.is_empty() {
        scene.tally.count("unexplained");
        let (plan, story) = (&scene.plan, scene.story.text());
        let (log, problems) = (scene.log.lock().unwrap().join("\n"), problems.join("\n  "));
        eprintln!(
            "\nrun {run} of seed {seed}: {plan:?}\n{story}the server:\n{log}\nrun {run}, \
             wrong:\n  {problems}\nrepeat it: tests/crash-campaign --seed {seed} --only {run}\n"
        );
    }
    std::mem::take(&mut scene.tally)
}

impl Scene {
    fn new(seed: u64, run: u64, directory: &std::path::Path) -> Self {
        let plan = Plan::of(seed, run);
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let server = MockServer::builder()
            .grace(if plan.grace { GRACE } else { Duration::ZERO })
            // Only a refusal tells that a token has expired: it does so when we say.
            .expires_in(mock_server::ExpiresIn::Absent)
            .log(move |line| lines.lock().unwrap().push(line.to_owned()))
            .start()
            .unwrap();
        let setting = Setting {
            name: String::new(),
            origin: server.origin(),
            service: format!("campaign-{seed}-{run}"),
            directory: directory.to_owned(),
            in_keychain: plan.in_keychain,
            lock_wait: plan.lock_wait,
            reuse_grace: plan.says_grace.then_some(GRACE),
        };
        Self {
            server,
            log,
            story: Story::new(),
            logins: Vec::new(),
            tally: Tally::default(),
            crew: Crew::new(setting),
            // Another one than the plan's, which must not depend on how often it is asked here.
            chance: Chance::of(!seed, run),
            plan,
        }
    }

    fn begin(&mut self) {
        for _ in 0..self.plan.workers {
            self.crew.start(&mut self.story);
        }
        self.log_in();
        self.recover();
    }

    fn carry_out(&mut self, deed: Deed, keychain: &mut Keychain) {
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
                self.expire();
            }
            Deed::LogOut(moment) => {
                let there = match moment {
                    Some(moment) => match self.reach(moment) {
                        None => return,
                        there => there,
                    },
                    None => None,
                };
                let place = moment.map_or_else(|| "rest".to_owned(), |moment| moment.to_string());
                self.tally.count(format!("logouts at {place}"));
                self.log_out(there);
                self.log_in();
            }
            Deed::KillKeychain(moment, time) => {
                let there = match moment {
                    Some(moment) => match self.reach(moment) {
                        None => return,
                        there => there,
                    },
                    None => None,
                };
                let place = moment.map_or_else(|| "rest".to_owned(), |moment| moment.to_string());
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
                    self.server.on_next(Route::Token, 1, mock_server::Fault::DropBefore);
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

    fn go_on(&mut self, there: There) {
        drop(there.hold);
        self.crew.order_all(&Order::GoOn);
    }

    fn expire(&mut self) {
        self.story.note(Noted::Expired);
        self.server.expire_access_tokens();
    }

    fn listen(&mut self, time: Duration) {
        self.crew.hear(&mut self.story, time, |_, _| false);
    }

    /// A new login by the worker whose turn it is. It may be busy, or the store may be down: then
    /// the next one has its try.
    fn log_in(&mut self) {
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
    fn log_out(&mut self, there: Option<There>) {
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
            if answered && done {
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

    /// Waits until the API answers again, or the session is found to be lost: then a new one
    /// begins.
    fn recover(&mut self) {
        let number = self.logins.len() - 1;
        let expected = user(number);
        let mut begun = HashSet::new();
        // An answer to what was asked before tells nothing.
        let mut ok = |by: &str, said: &Said| match said {
            Said::Begins(_) => {
                begun.insert(by.to_owned());
                false
            }
            Said::Ok(_, user) => *user == expected && begun.contains(by),
            _ => false,
        };
        let end = Instant::now() + RECOVERY;
        while Instant::now() < end {
            if self.crew.hear(&mut self.story, TICK * 20, &mut ok).is_some() {
                return;
            }
            if !self.server.family_alive(self.logins[number]) {
                let told = |_: &str, said: &Said| matches!(said, Said::LoggedOut(..));
                self.crew.hear(&mut self.story, PATIENCE, told);
                self.log_in();
                return self.recover();
            }
        }
        self.story.note(Noted::Missed("an answer of the API".to_owned()));
        self.tally.count("not come to an answer of the API in 10 s");
    }

    /// No more faults: a fresh worker and all others must get through, and end when asked.
    fn calm(&mut self) {
        self.story.note(Noted::Deed("calm".to_owned()));
        self.crew.order_all(&Order::GoOn);
        self.recover();
        self.expire();
        self.crew.start(&mut self.story);
        let expected = user(self.logins.len() - 1);
        let mut waiting = self.crew.names();
        let through = |by: &str, said: &Said| {
            let is_through = match said {
                Said::Ok(_, user) => *user == expected,
                Said::LoggedOut(..) => !self.server.family_alive(*self.logins.last().unwrap()),
                _ => false,
            };
            if is_through {
                waiting.retain(|name| name != by);
            }
            waiting.is_empty()
        };
        if self.crew.hear(&mut self.story, CALM, through).is_none() {
            self.story.note(Noted::Missed(format!("{GETS_THROUGH}: {waiting:?}")));
        }
        self.crew.end(&mut self.story);
    }
}

/// Whose login it is, by its number.
pub fn user(number: usize) -> String {
    format!("user-{number}")
}

pub const LOGIN: &str = "a login";
pub const LOGOUT: &str = "a logout";
pub const GETS_THROUGH: &str = "a request that gets through";

/// For a moment that may not come, since the workers wait before the next try.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cooldown after some failures, and less than the server's window.
const RECOVERY: Duration = Duration::from_secs(8);

/// For a login or a logout: the waits for the lock, the store and the server.
const LONG: Duration = Duration::from_secs(20);

const CALM: Duration = Duration::from_secs(30);

const ATTEMPTS: usize = 10;
