//! Everything that there is: the server, the store and what is beside the lock, the processes.

use crate::{Process, Server, Step};

/// A refresh token: of which login, and the how many-eth of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub login: u8,
    pub generation: u8,
}

impl Token {
    /// Not the first one's, with which all begins.
    fn is_a_logins(self) -> bool {
        self.generation == 0 && self.login > 0
    }
}

/// How often each thing may happen, so that there is an end to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    pub processes: u8,
    pub refreshes: u8,
    pub kills: u8,
    /// Requests and answers that are lost on their way, or come to a busy server.
    pub losses: u8,
    /// Writes to the store that fail, or hang and land later.
    pub troubles: u8,
    pub logouts: u8,
    pub logins: u8,
}

/// What may be left out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    TakeTheLock,
    ReadAgain,
    Mark,
    Journal,
    LookBeforeSaving,
    LookAfterSaving,
    KeepLoginsApart,
    RevokeOnlyWhatIsOut,
    ReplayAtMostOnce,
    HoldTheLockForALateWrite,
    LeaveTheMarkToNewerTokens,
    EndOnlyWhatIsRefused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub server: Server,
    /// The process that has it.
    lock: Option<u8>,
    record: Option<Token>,
    journal: Option<Token>,
    mark: Option<Token>,
    /// Logins that the user has ended, by number.
    out: u8,
    refused: Option<Token>,
    processes: Vec<Process>,
    /// Writes that nobody waits for any more, and that may still land.
    orphans: Vec<Orphan>,
    left: Limits,
    /// Logins whose last answer was lost: killed before it was on the disk, or lost on its way.
    gaps: u8,
    /// Logouts that have returned to the program: settled, or left to the next who has the lock.
    returned: u8,
    /// Logins that another one has taken the place of.
    replaced: u8,
    /// Logins that could not be stored: the program has their tokens back.
    given_back: u8,
    sent: Vec<Token>,
    pub(crate) faults: Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Orphan {
    token: Token,
    /// Its process was killed, and its lock is free: nobody can wait for it.
    is_of_the_killed: bool,
}

/// What must never have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub(crate) sent_without_lock: bool,
    pub(crate) sent_without_mark: bool,
    pub(crate) sent_again: bool,
    pub(crate) handed_out_before_durable: bool,
    pub(crate) handed_out_after_logout: bool,
    pub(crate) ended_by_mistake: bool,
    pub(crate) crossed_logins: bool,
    pub(crate) revoked_a_living_one: bool,
    pub(crate) acted_unseen: bool,
    pub(crate) wrote_without_lock: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request needs a refresh.
    Refresh(u8),
    /// The next step, and all goes well.
    Go(u8),
    /// The request is lost on its way.
    LoseRequest(u8),
    /// The answer is.
    LoseAnswer(u8),
    /// The server does not look at it for now.
    Busy(u8),
    /// The write to the store fails.
    Fail(u8),
    /// It is given up after a while, and goes on.
    Hang(u8),
    /// It lands.
    Land(u8),
    /// The lock was not to be had in time: whoever has it next settles the logout.
    GiveUp(u8),
    /// That of a process which is no more.
    LandOrphan(usize),
    LogOut(u8),
    LogIn(u8),
    Kill(u8),
}

impl World {
    /// Somebody is logged in, and all processes know it.
    pub(crate) fn new(limits: Limits) -> Self {
        let first = Token { login: 0, generation: 0 };
        let process = Process::new(Some(first));
        Self {
            server: Server::new(),
            lock: None,
            record: Some(first),
            journal: None,
            mark: None,
            out: 0,
            refused: None,
            processes: vec![process; usize::from(limits.processes)],
            orphans: Vec::new(),
            left: limits,
            gaps: 0,
            returned: 0,
            replaced: 0,
            given_back: 0,
            sent: Vec::new(),
            faults: Faults::default(),
        }
    }

    pub(crate) fn actions(&self, actions: &mut Vec<Action>) {
        for (n, process) in (0..).zip(&self.processes) {
            let writes =
                matches!(process.step, Step::CatchUp { .. } | Step::Commit { .. } | Step::LogIn(_));
            match process.step {
                Step::Dead => continue,
                Step::Idle => {
                    if process.memory.is_some() && self.left.refreshes > 0 {
                        actions.push(Action::Refresh(n));
                    }
                    if process.memory.is_some() && self.left.logouts > 0 {
                        actions.push(Action::LogOut(n));
                    }
                    if self.left.logins > 0 {
                        actions.push(Action::LogIn(n));
                    }
                }
                Step::Send { .. } if self.left.losses > 0 => {
                    actions.extend([Action::Go(n), Action::LoseRequest(n), Action::LoseAnswer(n)]);
                    actions.push(Action::Busy(n));
                }
                Step::Leave if process.late.is_some() => actions.push(Action::Land(n)),
                Step::WaitToSettle(_) if self.lock.is_some() => actions.push(Action::GiveUp(n)),
                _ => actions.push(Action::Go(n)),
            }
            if writes && self.left.troubles > 0 {
                actions.extend([Action::Fail(n), Action::Hang(n)]);
            }
            if self.left.kills > 0 && process.step != Step::Idle {
                actions.push(Action::Kill(n));
            }
        }
        actions.extend((0..self.orphans.len()).map(Action::LandOrphan));
    }

    pub(crate) fn act(&mut self, action: Action, broken: Option<Rule>) {
        let is = |rule| broken == Some(rule);
        match action {
            Action::Refresh(n) => {
                self.left.refreshes -= 1;
                let step = if is(Rule::TakeTheLock) { Step::Read } else { Step::Wait };
                self.at(n).step = step;
            }
            Action::LogOut(n) => {
                self.left.logouts -= 1;
                if let Some(token) = self.at(n).memory.take() {
                    self.at(n).step = Step::NoteOut(token.login);
                }
            }
            Action::LogIn(n) => {
                self.left.logins -= 1;
                let token = self.server.log_in();
                self.at(n).step = Step::WaitToLogIn(token);
            }
            Action::Kill(n) => self.kill(n),
            Action::Land(n) => {
                // A login's was given back to the program, and is undone.
                if let Some(token) = self.at(n).late.take().filter(|late| !late.is_a_logins()) {
                    self.save(n, token);
                }
            }
            Action::GiveUp(n) => {
                if let Step::WaitToSettle(login) = self.at(n).step {
                    self.returned |= bit(login);
                }
                self.at(n).step = Step::Idle;
            }
            Action::LandOrphan(orphan) => {
                let Orphan { token, is_of_the_killed } = self.orphans.remove(orphan);
                // A keychain that carries out what a killed process has asked for after what
                // others did since: that gap nobody can close.
                if let Some(there) = self.record.filter(|there| there.login != token.login)
                    && is_of_the_killed
                {
                    self.gaps |= bit(there.login);
                }
                // The lock of the killed went with them, and nobody can hold it in their place.
                self.faults.wrote_without_lock |= !is_of_the_killed;
                self.record = Some(token);
            }
            Action::LoseRequest(n) => {
                self.left.losses -= 1;
                self.sends(n);
                self.lost(n, broken);
            }
            Action::LoseAnswer(n) => {
                self.left.losses -= 1;
                let token = self.sends(n);
                if self.server.refresh(token).is_some() {
                    self.gaps |= bit(token.login);
                }
                self.lost(n, broken);
            }
            Action::Busy(n) => {
                self.left.losses -= 1;
                self.sends(n);
                self.not_looked_at(n, broken);
            }
            Action::Fail(n) | Action::Hang(n) => {
                self.left.troubles -= 1;
                let hangs = matches!(action, Action::Hang(_));
                self.write_goes_wrong(n, hangs, broken);
            }
            Action::Go(n) => self.go(n, broken),
        }
    }

    fn go(&mut self, n: u8, broken: Option<Rule>) {
        let is = |rule| broken == Some(rule);
        let Process { memory, step, .. } = self.processes[usize::from(n)];
        let next = match step {
            Step::Wait => return self.take_lock(n, Step::Read),
            Step::WaitToSettle(login) => {
                return self.take_lock(n, Step::Settle { login, newest: None });
            }
            Step::WaitToLogIn(token) => return self.take_lock(n, Step::LogIn(token)),
            Step::Read => self.read(n, broken),
            Step::CatchUp { current, sends } => {
                if self.may_save(current) {
                    self.save(n, current);
                    if is(Rule::LeaveTheMarkToNewerTokens) {
                        self.mark = None;
                    }
                }
                after_catching_up(current, sends)
            }
            Step::Mark(token) => {
                let was_marked = self.mark == Some(token);
                if !is(Rule::Mark) {
                    self.mark = Some(token);
                }
                if self.is_out(token.login) {
                    Step::Settle { login: token.login, newest: Some(token) }
                } else {
                    Step::Send { token, before: 0, was_marked }
                }
            }
            Step::Send { .. } => {
                let token = self.sends(n);
                match self.server.refresh(token) {
                    Some(new) if is(Rule::Journal) => Step::Commit { new },
                    Some(new) => Step::Keep { new },
                    None => Step::NoteRefused(token),
                }
            }
            Step::Keep { new } => {
                self.journal = Some(new);
                Step::Commit { new }
            }
            Step::Commit { new } => match self.before_saving(n, new, broken) {
                Ok(()) => {
                    self.save(n, new);
                    self.mark = None;
                    Step::Publish { new }
                }
                Err(instead) => instead,
            },
            Step::Publish { new } if self.is_out(new.login) && !is(Rule::LookAfterSaving) => {
                Step::Settle { login: new.login, newest: Some(new) }
            }
            Step::Publish { new } => {
                let durable = [self.record, self.journal].into_iter().flatten();
                let is_durable =
                    durable.into_iter().any(|kept| kept.login == new.login && kept >= new);
                self.faults.handed_out_before_durable |= !is_durable;
                self.faults.handed_out_after_logout |= self.returned & bit(new.login) != 0;
                // Who waits began as whom memory says.
                self.faults.crossed_logins |= memory.is_some_and(|mine| mine.login != new.login);
                self.at(n).memory = Some(new);
                Step::Leave
            }
            Step::NoteRefused(token) => {
                self.refused = Some(token);
                Step::Rejected(token)
            }
            Step::Rejected(token) => {
                match self.newest() {
                    Some(newest) if newest.login == token.login && newest > token => {
                        self.at(n).memory = Some(newest);
                    }
                    Some(newest) if newest.login != token.login => {
                        self.at(n).memory = Some(newest);
                    }
                    _ => {
                        self.faults.ended_by_mistake |= self.server.is_good(token);
                        self.at(n).memory = None;
                        self.clear(n, token.login);
                    }
                }
                Step::Leave
            }
            Step::NoteOut(login) => {
                self.out |= bit(login);
                Step::WaitToSettle(login)
            }
            Step::Settle { login, newest } => {
                self.settle(n, login, newest);
                if memory.is_some_and(|memory| memory.login == login) {
                    self.at(n).memory = None;
                }
                Step::Leave
            }
            Step::LogIn(token) => {
                if let Some(before) = self.record {
                    self.replaced |= bit(before.login);
                }
                self.save(n, token);
                self.at(n).memory = Some(token);
                Step::Leave
            }
            Step::Leave => {
                self.unlock(n);
                Step::Idle
            }
            Step::Idle | Step::Dead => step,
        };
        self.at(n).step = next;
    }

    /// Reads the record and the journal, and looks whether a refresh is still needed.
    fn read(&mut self, n: u8, broken: Option<Rule>) -> Step {
        let Some(mine) = self.processes[usize::from(n)].memory else {
            return Step::Leave;
        };
        if broken == Some(Rule::ReadAgain) {
            return Step::Mark(mine);
        }
        self.at(n).has_looked = true;
        match self.newest() {
            None => {
                self.at(n).memory = None;
                Step::Leave
            }
            Some(newest) if self.is_out(newest.login) => {
                Step::Settle { login: newest.login, newest: Some(newest) }
            }
            Some(newest) if self.refused == Some(newest) => {
                self.faults.ended_by_mistake |= self.server.is_good(newest);
                self.at(n).memory = None;
                self.clear(n, newest.login);
                Step::Leave
            }
            Some(newest) if newest.login != mine.login => {
                if broken == Some(Rule::KeepLoginsApart) {
                    return Step::Publish { new: newest };
                }
                // Those who waited are logged out; later requests are the new login's.
                self.at(n).memory = Some(newest);
                Step::Leave
            }
            Some(newest) => {
                let current = newest.max(mine);
                self.at(n).memory = Some(current);
                let sends = current == mine;
                match self.record == Some(newest) {
                    true => after_catching_up(current, sends),
                    false => Step::CatchUp { current, sends },
                }
            }
        }
    }

    /// What was sent, and whether it might be.
    fn sends(&mut self, n: u8) -> Token {
        let Step::Send { token, before, was_marked } = self.processes[usize::from(n)].step else {
            unreachable!("only who sends loses anything");
        };
        self.faults.sent_without_lock |= self.lock != Some(n);
        self.faults.acted_unseen |= !self.processes[usize::from(n)].has_looked;
        self.faults.sent_without_mark |= self.mark != Some(token);
        // The mark of a login that was replaced went with it; only a keychain out of turn brings
        // that back.
        let is_allowed = before == 1 || was_marked || self.replaced & bit(token.login) != 0;
        self.faults.sent_again |= self.sent.contains(&token) && !is_allowed;
        if !self.sent.contains(&token) {
            self.sent.push(token);
            self.sent.sort_unstable();
        }
        token
    }

    fn lost(&mut self, n: u8, broken: Option<Rule>) {
        let Step::Send { token, before, was_marked } = self.processes[usize::from(n)].step else {
            return;
        };
        self.at(n).step = match before == 0 || broken == Some(Rule::ReplayAtMostOnce) {
            true => Step::Send { token, before: before + 1, was_marked },
            // The mark stays: its answer may have been lost.
            false => Step::Leave,
        };
    }

    fn not_looked_at(&mut self, n: u8, broken: Option<Rule>) {
        let Step::Send { token, before, was_marked } = self.processes[usize::from(n)].step else {
            return;
        };
        self.at(n).step = if broken == Some(Rule::EndOnlyWhatIsRefused) {
            Step::NoteRefused(token)
        } else {
            // `Kept::unmark`, unless an older question is open.
            if before == 0 && !was_marked {
                self.mark = None;
                // It is as if it had never been.
                self.sent.retain(|sent| *sent != token);
            }
            Step::Leave
        };
    }

    /// `Kept::commit` looks before it saves: `Err` is what to do in its place.
    fn before_saving(&mut self, n: u8, new: Token, broken: Option<Rule>) -> Result<(), Step> {
        let there = self.record;
        if broken != Some(Rule::LookBeforeSaving) {
            if self.is_out(new.login) {
                return Err(Step::Settle { login: new.login, newest: Some(new) });
            }
            if let Some(there) = there.filter(|there| there.login != new.login || *there > new) {
                if broken == Some(Rule::RevokeOnlyWhatIsOut) {
                    self.revoke(new.login);
                }
                self.at(n).memory = Some(there);
                return Err(Step::Leave);
            }
        }
        self.faults.crossed_logins |= there.is_some_and(|there| there.login != new.login);
        Ok(())
    }

    /// `Kept::catch_up` looks as well.
    fn may_save(&self, token: Token) -> bool {
        let is_overtaken = |there: Token| there.login != token.login || there > token;
        !self.is_out(token.login) && !self.record.is_some_and(is_overtaken)
    }

    fn write_goes_wrong(&mut self, n: u8, hangs: bool, broken: Option<Rule>) {
        let next = match self.processes[usize::from(n)].step {
            Step::CatchUp { current, sends } if !hangs => after_catching_up(current, sends),
            // What goes on is waited for before anything is sent (`Locked::is_free`).
            Step::CatchUp { current, .. } => {
                self.at(n).late = self.may_save(current).then_some(current);
                Step::Leave
            }
            Step::Commit { new } => match self.before_saving(n, new, broken) {
                Ok(()) => {
                    if hangs && broken == Some(Rule::HoldTheLockForALateWrite) {
                        self.orphans.push(Orphan { token: new, is_of_the_killed: false });
                    } else if hangs {
                        self.at(n).late = Some(new);
                    }
                    // Safe in the journal: in use all the same.
                    Step::Publish { new }
                }
                Err(instead) => instead,
            },
            // Given back to the program.
            Step::LogIn(token) => {
                self.given_back |= bit(token.login);
                self.at(n).late = hangs.then_some(token);
                Step::Leave
            }
            step => step,
        };
        self.at(n).step = next;
    }

    fn settle(&mut self, n: u8, login: u8, newest: Option<Token>) {
        let there = self.newest();
        let is_there = there.is_some_and(|there| there.login == login);
        if is_there || newest.is_some() {
            self.revoke(login);
        }
        if is_there {
            self.clear(n, login);
        }
        self.returned |= bit(login);
    }

    fn revoke(&mut self, login: u8) {
        self.faults.revoked_a_living_one |= !self.is_out(login);
        self.server.revoke(login);
    }

    fn save(&mut self, n: u8, token: Token) {
        self.faults.wrote_without_lock |= self.lock != Some(n);
        self.record = Some(token);
    }

    /// Of `login`, which is over.
    fn clear(&mut self, n: u8, login: u8) {
        self.faults.wrote_without_lock |= self.lock != Some(n);
        self.faults.crossed_logins |= self.record.is_some_and(|there| there.login != login);
        (self.record, self.journal, self.mark) = (None, None, None);
    }

    /// `Kept::newest`: the journal's, where it is of the record's login, and newer.
    fn newest(&self) -> Option<Token> {
        let record = self.record?;
        let journal = self.journal.filter(|journal| journal.login == record.login);
        journal.map_or(Some(record), |journal| Some(journal.max(record)))
    }

    fn take_lock(&mut self, n: u8, then: Step) {
        if self.lock.is_none() {
            self.lock = Some(n);
            // What was seen before is old by now.
            self.at(n).has_looked = false;
            self.at(n).step = then;
        }
    }

    fn unlock(&mut self, n: u8) {
        if self.lock == Some(n) {
            self.lock = None;
        }
    }

    fn kill(&mut self, n: u8) {
        self.left.kills -= 1;
        let process = self.processes[usize::from(n)];
        if let Some(held) = process.holds() {
            self.gaps |= bit(held.login);
        }
        if let Step::WaitToLogIn(token) | Step::LogIn(token) = process.step {
            self.given_back |= bit(token.login);
        }
        // What it has asked the keychain to do, that may still do.
        self.orphans.extend(process.late.map(|token| Orphan { token, is_of_the_killed: true }));
        self.unlock(n);
        // The next start knows what is stored.
        *self.at(n) = Process::new(self.newest());
        if self.newest().is_none_or(|newest| self.is_out(newest.login)) {
            self.at(n).step = Step::Dead;
        }
    }

    fn is_out(&self, login: u8) -> bool {
        self.out & bit(login) != 0
    }

    fn at(&mut self, n: u8) -> &mut Process {
        &mut self.processes[usize::from(n)]
    }

    /// The good token of each login that nobody has ended is on the disk, or in the hands of a
    /// process that is about to put it there; and no server was given a reason to end it.
    pub(crate) fn nothing_is_lost(&self) -> bool {
        let ended = self.out | self.replaced | self.gaps | self.given_back;
        let is_reused = (0..self.server.logins())
            .any(|login| self.server.was_reused(login) && self.gaps & bit(login) == 0);
        let is_safe = |token: Token| {
            self.newest() == Some(token)
                || self.processes.iter().any(|process| {
                    process.holds() == Some(token)
                        || matches!(process.step,
                        Step::WaitToLogIn(new) | Step::LogIn(new) if new == token)
                })
        };
        let mut living = self.server.living().filter(|token| ended & bit(token.login) == 0);
        !is_reused && living.all(is_safe)
    }

    pub(crate) fn has_logged_out(&self) -> bool {
        self.returned != 0
    }
}

fn after_catching_up(current: Token, sends: bool) -> Step {
    if sends { Step::Mark(current) } else { Step::Leave }
}

fn bit(login: u8) -> u8 {
    1 << login
}
