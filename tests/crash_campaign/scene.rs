//! A run: its plan, carried out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mock_server::{FamilyId, MockServer};

use super::answers::Answers;
use super::chance::Chance;
use super::crew::{Crew, TICK};
use super::judge;
use super::keychain::Keychain;
use super::lane::{Lane, Report};
use super::plan::{Deed, GRACE, Plan};
use super::said::{Order, Said};
use super::story::{Noted, Story};
use super::tally::Tally;
use super::watchdog::Watchdog;
use super::worker::Setting;

pub struct Scene {
    pub plan: Plan,
    pub server: MockServer,
    /// What the server did, a line for each request.
    pub log: Arc<Mutex<Vec<String>>>,
    pub story: Story,
    /// In order; the last one is in force.
    pub logins: Vec<FamilyId>,
    pub tally: Tally,
    pub crew: Crew,
    pub chance: Chance,
}

/// Plays the run and judges it. What is wrong is told, with the whole story. `time` counts how often
/// it is played: each time has a name of its own in the keychain.
pub fn play(
    lane: &Lane,
    run: u64,
    time: usize,
    keychain: &mut Keychain,
    watchdog: &Watchdog,
) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(lane.seed, run, time, directory.path());
    let deeds = scene.plan.deeds.clone();
    watchdog.doing(format!("run {run} begins"));
    scene.begin();
    for deed in deeds {
        watchdog.doing(format!("run {run}: {deed:?}"));
        scene.story.note(Noted::Deed(format!("{deed:?}")));
        scene.carry_out(deed, keychain);
        // Two things may go wrong with one refresh.
        if matches!(deed, Deed::Break(_)) {
            if scene.chance.one_in(2) {
                continue;
            }
            scene.expire();
        }
        scene.recover();
    }
    watchdog.doing(format!("run {run} ends"));
    scene.calm();
    let problems = judge::judge(&mut scene);
    scene.tally.count("runs");
    if !problems.is_empty() {
        scene.tally.count("unexplained");
    }
    let is_told = lane.tells_all || !problems.is_empty();
    let story = is_told.then(|| scene.tell(lane.seed, run, &problems));
    Report { run, tally: scene.tally, story }
}

impl Scene {
    fn new(seed: u64, run: u64, time: usize, directory: &std::path::Path) -> Self {
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
            service: format!("campaign-{seed}-{run}-{time}"),
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

    pub fn expire(&mut self) {
        self.story.note(Noted::Expired);
        self.server.expire_access_tokens();
    }

    pub fn listen(&mut self, time: Duration) {
        self.crew.hear(&mut self.story, time, |_, _| false);
    }

    /// Waits until the API answers again, at best to all of them; or until the session is found
    /// to be lost: then a new one begins.
    fn recover(&mut self) {
        let number = self.logins.len() - 1;
        let mut answers = Answers::to(user(number));
        let mut end = Instant::now() + RECOVERY;
        while Instant::now() < end {
            let got = |by: &str, said: &Said| answers.got(by, said);
            let answered = self.crew.hear(&mut self.story, TICK * 20, got).is_some();
            // Tokens that a program has never seen accepted, and are refused at once, it does not
            // refresh for a while.
            if answered && self.crew.names().iter().all(|name| answers.have_come_to(name)) {
                return;
            }
            if answered {
                end = end.min(Instant::now() + STRAGGLERS);
            }
            if !self.server.family_alive(self.logins[number]) {
                let told = |_: &str, said: &Said| matches!(said, Said::LoggedOut(..));
                self.crew.hear(&mut self.story, PATIENCE, told);
                self.log_in();
                return self.recover();
            }
        }
        if !answers.have_come() {
            self.story.note(Noted::Missed("an answer of the API".to_owned()));
            self.tally.count(format!("not come to an answer of the API in {RECOVERY:?}"));
        }
    }

    /// No more faults: a fresh worker and all others must get through, and end when asked.
    fn calm(&mut self) {
        self.story.note(Noted::Deed("calm".to_owned()));
        self.crew.order_all(&Order::GoOn);
        self.recover();
        self.expire();
        self.crew.start(&mut self.story);
        let last = self.logins.len() - 1;
        let (mut answers, family) = (Answers::to(user(last)), self.logins[last]);
        let mut waiting = self.crew.names();
        let through = |by: &str, said: &Said| {
            let is_over = matches!(said, Said::LoggedOut(..)) && !self.server.family_alive(family);
            if answers.got(by, said) || is_over {
                waiting.retain(|name| name != by);
            }
            waiting.is_empty()
        };
        if self.crew.hear(&mut self.story, CALM, through).is_none() {
            self.story.note(Noted::Missed(format!("{GETS_THROUGH}: {waiting:?}")));
        }
        self.crew.end(&mut self.story);
    }

    fn tell(&self, seed: u64, run: u64, problems: &[String]) -> String {
        let (plan, story) = (&self.plan, self.story.text());
        let (log, problems) = (self.log.lock().unwrap().join("\n"), problems.join("\n  "));
        format!(
            "\nrun {run} of seed {seed}: {plan:?}\n{story}the server:\n{log}\nrun {run}, \
             wrong:\n  {problems}\nrepeat it: tests/crash-campaign --seed {seed} --only {run}\n"
        )
    }
}

/// Whose login it is, by its number.
pub fn user(number: usize) -> String {
    format!("user-{number}")
}

pub const GETS_THROUGH: &str = "a request that gets through";

/// For somebody to say that the session is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cooldown after some failures, and less than the server's window.
const RECOVERY: Duration = Duration::from_secs(8);

/// A program looks for a new login once a second.
const STRAGGLERS: Duration = Duration::from_millis(1_200);

const CALM: Duration = Duration::from_secs(30);
