//! What a registry has said, for as long as it holds.
//!
//! Schemas never change under their id. The latest schema of a subject does, and what is missing may be there
//! later: both are asked for again after [`LATEST_FOR`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::columnar::{Registered, SchemaId};

/// How long the latest schema of a subject, or its absence, is cached.
const LATEST_FOR: Duration = Duration::from_secs(60);
/// How many schemas, and how many missing ids, are cached.
const KEPT_MAX: usize = 100_000;

/// A schema, or why there is none.
pub(super) type Found = Result<Arc<Registered>, String>;

/// A subject, and the body of a request for a schema.
pub(super) type Key = (String, String);

/// Times are those of a clock that does not go back.
#[derive(Debug, Default)]
pub(super) struct Cache {
    schemas: BTreeMap<SchemaId, Arc<Registered>>,
    missing: BTreeMap<SchemaId, (Duration, String)>,
    latest: BTreeMap<String, (Duration, Found)>,
    registered: BTreeMap<Key, SchemaId>,
    versions: BTreeMap<Key, i32>,
}

fn is_recent(since: Duration, now: Duration) -> bool {
    now.saturating_sub(since) < LATEST_FOR
}

fn keep<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    if map.len() >= KEPT_MAX {
        map.pop_first();
    }
    map.insert(key, value);
}

impl Cache {
    pub(super) fn schema(&self, id: SchemaId, now: Duration) -> Option<Found> {
        if let Some(found) = self.schemas.get(&id) {
            return Some(Ok(Arc::clone(found)));
        }
        let (since, detail) = self.missing.get(&id)?;
        is_recent(*since, now).then(|| Err(detail.clone()))
    }

    pub(super) fn keep_schema(&mut self, id: SchemaId, found: Found, now: Duration) {
        match found {
            Ok(found) => keep(&mut self.schemas, id, found),
            Err(detail) => keep(&mut self.missing, id, (now, detail)),
        }
    }

    pub(super) fn latest(&self, subject: &str, now: Duration) -> Option<Found> {
        let (since, found) = self.latest.get(subject)?;
        is_recent(*since, now).then(|| found.clone())
    }

    pub(super) fn keep_latest(&mut self, subject: &str, found: Found, now: Duration) {
        if let Ok(found) = &found {
            keep(&mut self.schemas, found.id, Arc::clone(found));
        }
        self.latest.retain(|_, (since, _)| is_recent(*since, now));
        self.latest.insert(subject.to_owned(), (now, found));
    }

    /// The id of a schema that was registered under a subject.
    pub(super) fn registered(&self, key: &Key) -> Option<SchemaId> {
        self.registered.get(key).copied()
    }

    pub(super) fn keep_registered(&mut self, key: Key, id: SchemaId) {
        self.latest.remove(&key.0);
        keep(&mut self.registered, key, id);
    }

    pub(super) fn version(&self, key: &Key) -> Option<i32> {
        self.versions.get(key).copied()
    }

    pub(super) fn keep_version(&mut self, key: Key, version: i32) {
        keep(&mut self.versions, key, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_is_forgotten_after_a_while() {
        let mut cache = Cache::default();
        let begin = Duration::from_secs(5);
        cache.keep_schema(SchemaId(7), Err("gone".to_owned()), begin);
        cache.keep_latest("s", Err("none".to_owned()), begin);
        let soon = begin + LATEST_FOR / 2;
        assert_eq!(cache.schema(SchemaId(7), soon).unwrap().unwrap_err(), "gone");
        assert_eq!(cache.latest("s", soon).unwrap().unwrap_err(), "none");
        let late = begin + LATEST_FOR;
        assert!(cache.schema(SchemaId(7), late).is_none());
        assert!(cache.latest("s", late).is_none());
        // A new schema of a subject is the latest one.
        cache.keep_latest("s", Err("none".to_owned()), late);
        cache.keep_registered(("s".to_owned(), "{}".to_owned()), SchemaId(8));
        assert!(cache.latest("s", late).is_none());
    }
}
