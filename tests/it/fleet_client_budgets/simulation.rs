//! A fleet in one thread: the product's leases, the model of the server, and links that delay and lose messages. One step is a
//! millisecond.

use std::time::Duration;

use postern::clock::Moment;
use postern::config::Rate;
use postern::fleet::TimeSlots;
use postern::fleet::client_budgets::{AloneShare, Lease, Refill, Split, Taken};

use super::model::{MEMBER, Question, Server};

/// Time within which a grant of the server is used, in milliseconds.
const DELIVERY: u64 = 50;
const BEAT: u64 = 90;
/// A beat that arrives later is refused.
const LATEST_BEAT: u64 = 200;
const ALONE_AFTER: u64 = 1000;
/// A connection without answers is given up after this time.
const GIVEN_UP: u64 = 300;
/// The lease of a member has surely ended so long after a beat was sent.
const LEASE_OVER: u64 = 950;
/// Reading of the server's clock at the begin, in milliseconds.
const SERVER_START: u64 = 1_000_000_000;

/// A replica.
struct Replica {
    id: String,
    lease: Lease,
    is_cut_off: bool,
    episode: u32,
    alone_since: Option<u64>,
    last_good: u64,
    last_beat: Option<u64>,
    known: u32,
    rank: Option<u32>,
    is_topping_up: bool,
    /// The times since when requests wait.
    waiters: Vec<u64>,
}

/// A message on its way.
#[derive(Clone)]
struct Message {
    replica: String,
    sent: u64,
    arrives: u64,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Beat,
    BeatAnswer { known: u32, rank: Option<u32> },
    Refill { episode: u32, asked: u32, owed: u32, waiters: Vec<u64>, is_top_up: bool },
    RefillAnswer { episode: u32, answer: Refill, owed: u32, waiters: Vec<u64>, is_top_up: bool },
}

/// The fleet, one budget of it, and the times of all requests that it has granted.
pub(super) struct Simulation {
    split: Split,
    replicas: Vec<Replica>,
    server: Server,
    is_paused: bool,
    messages: Vec<Message>,
    random: fastrand::Rng,
    longest_delay: u64,
    started: u32,
    now: u64,
    pub(super) granted: Vec<u64>,
    pub(super) refused: u64,
    /// Times that the server lost its state.
    losses: u32,
    /// Most requests that were on loan at a time, and those of replicas that have ended.
    most_owed: u32,
    owed_by_ended: u32,
}

impl Simulation {
    /// A fleet of `count` replicas of at most `most`, which has run for long.
    pub(super) fn new(rate: Rate, (count, most): (u32, u32), longest_delay: u64, seed: u64) -> Self {
        let split = Split::new(rate, most, Duration::from_millis(DELIVERY));
        let mut simulation = Self {
            split,
            replicas: Vec::new(),
            server: Server::default(),
            is_paused: false,
            messages: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            longest_delay,
            started: 0,
            now: 0,
            granted: Vec::new(),
            refused: 0,
            losses: 0,
            most_owed: 0,
            owed_by_ended: 0,
        };
        (0..count).for_each(|_| simulation.start());
        simulation
    }

    pub(super) fn count(&self) -> usize {
        self.replicas.len()
    }

    /// Starts a replica, unless as many as possible run.
    pub(super) fn start(&mut self) {
        if self.count() >= usize::try_from(self.split.replicas).expect("few") {
            return;
        }
        self.started += 1;
        self.replicas.push(Replica {
            id: format!("replica-{:04}", self.started),
            lease: Lease::new(self.split, self.moment() + self.split.credit_time()),
            is_cut_off: false,
            episode: 1,
            alone_since: None,
            last_good: self.now,
            last_beat: None,
            known: 0,
            rank: None,
            is_topping_up: false,
            waiters: Vec::new(),
        });
    }

    /// Ends a replica, which leaves the fleet or is killed.
    pub(super) fn stop(&mut self, index: usize, leaves: bool) {
        if self.count() > 1 {
            let replica = self.replicas.remove(index % self.count());
            self.owed_by_ended += replica.lease.owed();
            if leaves && !replica.is_cut_off && !self.is_paused {
                self.server.members.remove(&replica.id);
            }
        }
    }

    /// Cuts a replica off, or connects it again.
    pub(super) fn set_cut_off(&mut self, index: usize, is_cut_off: bool) {
        let index = index % self.count();
        // The server leaves a share to those that it knew as members.
        if self.server.members.contains_key(&self.replicas[index].id) && self.replicas[index].rank.is_some() {
            self.replicas[index].is_cut_off = is_cut_off;
        }
    }

    pub(super) fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// The server loses its state.
    pub(super) fn flush(&mut self) {
        // Members that are cut off at that moment are unknown afterwards.
        if self.replicas.iter().all(|replica| !replica.is_cut_off) {
            self.server = Server::default();
            self.losses += 1;
        }
    }

    /// Passes a long time without requests, if all replicas are connected.
    pub(super) fn rest(&mut self, millis: u64) {
        let is_calm = !self.is_paused && self.messages.is_empty();
        let is_together =
            |replica: &Replica| !replica.is_cut_off && replica.alone_since.is_none() && replica.waiters.is_empty();
        if is_calm && self.replicas.iter().all(is_together) {
            self.now += millis;
            for replica in &mut self.replicas {
                (replica.last_good, replica.last_beat) = (self.now, Some(self.now));
            }
            let end = self.server_time() + MEMBER;
            self.server.members.values_mut().for_each(|member| *member = end);
        }
    }

    /// Passes a millisecond, in which each replica gets this many requests.
    pub(super) fn step(&mut self, requests: &[u32]) {
        self.now += 1;
        self.deliver();
        for index in 0..self.replicas.len() {
            self.follow_membership(index);
            for _ in 0..requests.get(index).copied().unwrap_or(0) {
                self.request(index);
            }
            self.serve_waiters(index);
        }
        let owed = self.owed_by_ended + self.replicas.iter().map(|replica| replica.lease.owed()).sum::<u32>();
        self.most_owed = self.most_owed.max(owed);
    }

    fn moment(&self) -> Moment {
        Moment::default() + Duration::from_millis(self.now)
    }

    /// The server's clock, in microseconds.
    fn server_time(&self) -> f64 {
        f64::from(u32::try_from(SERVER_START + self.now).expect("small")) * 1e3
    }

    fn send(&mut self, replica: &str, sent: u64, kind: Kind) {
        let arrives = self.now + self.random.u64(0..=self.longest_delay);
        self.messages.push(Message { replica: replica.to_owned(), sent, arrives, kind });
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.messages).into_iter().partition(|message| {
            let is_for_server = matches!(message.kind, Kind::Beat | Kind::Refill { .. });
            message.arrives <= now && !(is_for_server && self.is_paused)
        });
        self.messages = later;
        let due: Vec<Message> = due;
        for message in due {
            let index = self.replicas.iter().position(|replica| replica.id == message.replica);
            if index.is_none_or(|index| self.replicas[index].is_cut_off) {
                if let Some(index) = index {
                    self.lost(index, message.kind);
                }
                continue;
            }
            match message.kind {
                Kind::Beat | Kind::Refill { .. } => self.at_server(message),
                _ => self.at_replica(index.expect("it runs"), message),
            }
        }
    }

    fn at_server(&mut self, Message { replica, sent, kind, .. }: Message) {
        let time = self.server_time();
        match kind {
            Kind::Beat if self.now - sent <= LATEST_BEAT => {
                self.server.beat(time, &replica);
                let known = u32::try_from(self.server.members.len()).expect("few");
                let rank = self.server.members.keys().position(|id| *id == replica);
                let rank = rank.and_then(|rank| u32::try_from(rank).ok());
                self.send(&replica, sent, Kind::BeatAnswer { known, rank });
            }
            Kind::Refill { episode, asked, owed, waiters, is_top_up } => {
                let (interval, burst) = (self.split.server_interval(), self.split.common);
                let question = Question { key: "budget".to_owned(), interval, burst, asked };
                let (granted, left, wait) = self.server.refill(time, (self.split.replicas, 0), &question);
                let answer = Refill { granted, left, wait: Duration::from_micros(wait) };
                self.send(&replica, sent, Kind::RefillAnswer { episode, answer, owed, waiters, is_top_up });
            }
            _ => {}
        }
    }

    fn at_replica(&mut self, index: usize, Message { sent, kind, .. }: Message) {
        let (now, moment) = (self.now, self.moment());
        let replica = &mut self.replicas[index];
        match kind {
            Kind::BeatAnswer { known, rank } if now - sent <= DELIVERY => {
                (replica.known, replica.rank) = (known, rank);
                replica.last_good = replica.last_good.max(sent);
            }
            Kind::RefillAnswer { episode, answer, owed, waiters, is_top_up } => {
                let is_current = replica.alone_since.is_none() && replica.episode == episode;
                if now - sent > DELIVERY || !is_current {
                    self.lost(index, Kind::RefillAnswer { episode, answer, owed, waiters, is_top_up });
                    return;
                }
                replica.is_topping_up &= !is_top_up;
                replica.lease.learn(&answer, moment);
                let waiting = u32::try_from(waiters.len()).expect("few");
                let granted = replica.lease.pay(answer.granted, owed);
                let served = waiting.min(granted);
                replica.lease.add(episode, granted - served);
                self.granted.extend((0..served).map(|_| now));
                self.refused += u64::from(waiting - served);
            }
            _ => {}
        }
    }

    /// The requests of a call without an answer wait on.
    fn lost(&mut self, index: usize, kind: Kind) {
        let replica = &mut self.replicas[index];
        if let Kind::Refill { waiters, is_top_up, .. } | Kind::RefillAnswer { waiters, is_top_up, .. } = kind {
            replica.is_topping_up &= !is_top_up;
            replica.waiters.extend(waiters);
        }
    }

    fn follow_membership(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let is_reachable = !replica.is_cut_off && !self.is_paused;
        let lease_over = replica.last_beat.is_none_or(|sent| now >= sent + LEASE_OVER);
        match replica.alone_since {
            None if now >= replica.last_good + ALONE_AFTER && lease_over => replica.alone_since = Some(now),
            Some(_) if is_reachable => {
                replica.alone_since = None;
                replica.episode += 1;
                // A new connection has a beat at once.
                replica.last_beat = None;
            }
            _ => {}
        }
        // Without answers the connection is given up.
        let is_connected = is_reachable || now <= replica.last_good + GIVEN_UP;
        let beats =
            is_connected && replica.alone_since.is_none() && replica.last_beat.is_none_or(|sent| now >= sent + BEAT);
        if beats {
            replica.last_beat = Some(now);
            let id = replica.id.clone();
            self.send(&id, now, Kind::Beat);
        }
    }

    fn share(&self, index: usize, since: u64) -> AloneShare {
        let replica = &self.replicas[index];
        let count = replica.known.max(self.split.replicas);
        let slots = replica.rank.filter(|rank| *rank < self.split.replicas);
        AloneShare {
            since: Moment::default() + Duration::from_millis(since),
            episode: replica.episode,
            replicas: count,
            slots: slots.map(|own| TimeSlots { count, own }),
            micros: (SERVER_START + self.now) * 1000,
        }
    }

    fn request(&mut self, index: usize) {
        let (now, moment) = (self.now, self.moment());
        let alone = self.replicas[index].alone_since.map(|since| self.share(index, since));
        let replica = &mut self.replicas[index];
        let taken = match alone {
            Some(alone) => replica.lease.take_alone(&alone, moment),
            None => replica.lease.take(replica.episode, moment),
        };
        match taken {
            Taken::Granted { left } => {
                self.granted.push(now);
                let runs_low = left <= self.split.lease / 2 && alone.is_none() && self.split.lease > 0;
                if runs_low && !replica.is_topping_up {
                    replica.is_topping_up = true;
                    // The refiller waits for up to 50 ms.
                    let delay = self.random.u64(0..=50);
                    let (episode, lease) = (replica.episode, &replica.lease);
                    let owed = lease.owed();
                    let asked = lease.missing(episode) + owed;
                    let kind = Kind::Refill { episode, asked, owed, waiters: Vec::new(), is_top_up: true };
                    let (replica, arrives) = (replica.id.clone(), now + delay);
                    self.messages.push(Message { replica, sent: arrives, arrives, kind });
                }
            }
            Taken::Refused(_) => self.refused += 1,
            Taken::Empty => replica.waiters.push(now),
        }
    }

    fn serve_waiters(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        // Nothing that came with this step has waited yet.
        let is_late = |since: &u64| now - since >= DELIVERY;
        let decided = if replica.alone_since.is_some() {
            replica.waiters.len()
        } else {
            replica.waiters.iter().filter(|since| is_late(since)).count()
        };
        let alone = replica.alone_since.map(|since| self.share(index, since));
        let moment = self.moment();
        for _ in 0..decided {
            let replica = &mut self.replicas[index];
            replica.waiters.remove(0);
            let taken = match &alone {
                Some(alone) => replica.lease.take_alone(alone, moment),
                None => replica.lease.take_unanswered(replica.episode, moment),
            };
            match taken {
                Taken::Granted { .. } => self.granted.push(now),
                _ => self.refused += 1,
            }
        }
        let replica = &mut self.replicas[index];
        if replica.alone_since.is_none() && !replica.waiters.is_empty() && !replica.is_cut_off {
            let waiters = std::mem::take(&mut replica.waiters);
            let is_top_up = !std::mem::replace(&mut replica.is_topping_up, true);
            let held = if is_top_up { replica.lease.missing(replica.episode) } else { 0 };
            let owed = replica.lease.owed();
            let asked = held + owed + u32::try_from(waiters.len()).expect("few");
            let (id, episode) = (replica.id.clone(), replica.episode);
            self.send(&id, now, Kind::Refill { episode, asked, owed, waiters, is_top_up });
        }
    }

    /// The largest number by which a window has more granted requests than burst + rate * w, the requests on loan, and one bucket
    /// for each loss of the server's state; than one more, for a budget without leases.
    pub(super) fn worst_excess(&self) -> f64 {
        let rate = f64::from(self.split.rate.per_second.get()) / 1e3;
        let exception = if self.split.lease == 0 { 1.0 } else { 0.0 };
        let exception = f64::from(self.losses).mul_add(self.split.common, exception + f64::from(self.most_owed));
        let burst = f64::from(self.split.rate.burst.get()) + exception;
        let (mut worst, mut lowest) = (f64::MIN, f64::MAX);
        for (number, at) in (0_u32..).zip(&self.granted) {
            let at = rate * f64::from(u32::try_from(*at).expect("small"));
            lowest = lowest.min(f64::from(number) - at);
            worst = worst.max(f64::from(number) - at - lowest + 1.0 - burst);
        }
        worst
    }
}
