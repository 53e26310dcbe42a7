//! What a leader answers to those who fetch.

use std::time::Duration;

use super::leading::Parked;
use super::log::{OffsetAndEpoch, Place};
use super::message::{Effect, FetchRequest, FetchResponse, FetchSnapshotRequest, Found};
use super::message::{FetchSnapshotResponse, Response, Token};
use super::role::Role;
use super::{Mutation, Quorum};

impl<P> Quorum<P> {
    pub(super) fn fetch_response(
        &self,
        last: OffsetAndEpoch,
        sent: Duration,
        found: Found<P>,
    ) -> FetchResponse<P> {
        let high_watermark = self.high_watermark;
        FetchResponse { last, sent, current: self.current(), high_watermark, found }
    }

    pub(super) fn on_fetch(
        &mut self,
        now: Duration,
        token: Token,
        request: FetchRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let FetchRequest { epoch, replica: key, last, sent, .. } = request;
        if !self.leads(epoch, key.id) {
            let response = self.fetch_response(last, sent, Found::NotLeader);
            self.answer(token, Response::Fetch(response), out);
            return;
        }
        let mut place = self.log.place(last);
        if self.has(Mutation::DivergenceIsNotSeen) && matches!(place, Place::Diverging(_)) {
            place = Place::Valid;
        }
        let starts_here = last.offset == self.log.start().offset;
        if self.has(Mutation::SnapshotEpochIsIgnored) && starts_here {
            place = Place::Valid;
        }
        let log_end = self.log.end();
        let Some(replica) = self.heard_from(now, key, out) else { return };
        let before = replica.parked.take();
        if place == Place::Valid {
            replica.end = replica.end.max(Some(last.offset.min(log_end)));
            replica.pace.fetched(now, last.offset, log_end);
        }
        if let Some(before) = before {
            // The older request of this replica has waited long enough.
            self.answer_records(&before, out);
        }
        match place {
            Place::Valid => self.serve(now, token, request, out),
            Place::Diverging(known) => {
                let response = self.fetch_response(last, sent, Found::Diverging(known));
                self.answer(token, Response::Fetch(response), out);
            }
            Place::Gone => {
                let found = self.snapshot.map_or(Found::NotLeader, Found::Snapshot);
                let response = self.fetch_response(last, sent, found);
                self.answer(token, Response::Fetch(response), out);
            }
        }
    }

    /// Answers a fetch whose log agrees, now or when there is something to tell.
    fn serve(
        &mut self,
        now: Duration,
        token: Token,
        request: FetchRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let FetchRequest { replica, last, sent, wants_records, high_watermark, .. } = request;
        let wait = request.max_wait.min(self.timing.election_min);
        let until = now + wait;
        let parked = Parked { token, last, sent, until, wants_records, high_watermark };
        self.advance(now, out);
        if self.has_news(&parked) || wait.is_zero() {
            self.answer_records(&parked, out);
            return;
        }
        match self.heard_from(now, replica, out) {
            Some(replica) => replica.parked = Some(parked),
            // It resigned, because its removal was committed.
            None => self.answer_records(&parked, out),
        }
    }

    fn has_news(&self, parked: &Parked) -> bool {
        let has_records = parked.wants_records && parked.last.offset < self.log.end();
        has_records || self.high_watermark > parked.high_watermark
    }

    fn answer_records(&mut self, parked: &Parked, out: &mut Vec<Effect<P>>) {
        let end = self.log.end();
        let is_leader = self.is_leader();
        let found = if is_leader { Found::Records(Vec::new()) } else { Found::NotLeader };
        let response = self.fetch_response(parked.last, parked.sent, found);
        let token = parked.token;
        // A cut log has no leader: the epoch of the response is that of the records' leader.
        if is_leader && parked.wants_records && parked.last.offset < end {
            out.push(Effect::AnswerRecords { token, response, end });
        } else {
            self.answer(token, Response::Fetch(response), out);
        }
    }

    /// Answers the fetches for which there is something to tell now.
    pub(super) fn answer_parked(&mut self, out: &mut Vec<Effect<P>>) {
        let Role::Leader(leading) = &self.role else { return };
        let parked = leading.replicas.iter().filter_map(|(key, replica)| {
            let parked = replica.parked?;
            self.has_news(&parked).then_some((*key, parked))
        });
        let parked: Vec<_> = parked.collect();
        self.unpark(&parked, out);
    }

    /// Answers the fetches that have waited as long as they may.
    pub(super) fn answer_waited(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let Role::Leader(leading) = &self.role else { return };
        let parked = leading.replicas.iter().filter_map(|(key, replica)| {
            let parked = replica.parked?;
            (now >= parked.until).then_some((*key, parked))
        });
        let parked: Vec<_> = parked.collect();
        self.unpark(&parked, out);
    }

    fn unpark(&mut self, parked: &[(super::ReplicaKey, Parked)], out: &mut Vec<Effect<P>>) {
        for (key, parked) in parked {
            if let Role::Leader(leading) = &mut self.role
                && let Some(replica) = leading.replicas.get_mut(key)
            {
                replica.parked = None;
            }
            self.answer_records(parked, out);
        }
    }

    pub(super) fn on_fetch_snapshot(
        &mut self,
        now: Duration,
        token: Token,
        request: FetchSnapshotRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let FetchSnapshotRequest { epoch, replica, snapshot, position } = request;
        let leads = self.leads(epoch, replica.id);
        if leads {
            self.heard_from(now, replica, out);
        }
        let current = self.current();
        let response = FetchSnapshotResponse { snapshot, position, current, part: None };
        if leads && self.snapshot.is_some_and(|known| snapshot.offset <= known.offset) {
            out.push(Effect::AnswerSnapshot { token, response });
        } else {
            self.answer(token, Response::FetchSnapshot(response), out);
        }
    }
}
