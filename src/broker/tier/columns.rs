//! The typed columns of the next file of a topic, and what became of values.
//!
//! The setting of the topic says which fields have columns, the list in the store what these are called
//! ([`crate::machine::tier::Columns`]). What is wrong with either costs a file its typed columns, and no more.

use crate::broker::partition::Partition;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::tier::Columns;
use crate::store::{Created, Store};
use crate::tier::{TierFile, ValueSchema};
use crate::types::TopicId;

use super::objects::{create_columns, read_columns};

/// How often others may be first before it is tried again with the next file.
const ROUNDS_MAX: usize = 100;

/// The typed columns of a file, with their names and field ids.
pub(super) type FileColumns = (ValueSchema, Vec<(String, u32)>);

/// The typed columns that the next file of a partition is to have; none without `ottla.tier.value.schema`, or where there
/// can be none now, which the log says.
///
/// # Errors
///
/// Those of the store: without it there is no next file either.
pub(super) async fn of_next_file(
    store: &dyn Store,
    partition: &Partition,
) -> Result<Option<FileColumns>> {
    let config = partition.config();
    let Some(text) = &config.tier_value_schema else { return Ok(None) };
    let placed = async {
        let schema = ValueSchema::parse(text)?;
        let names = place(store, partition.key().0, &schema).await?;
        Ok((schema, names))
    };
    match placed.await {
        Ok(columns) => Ok(Some(columns)),
        Err(error @ (Error::InvalidArgument(_) | Error::Corrupt { .. })) => {
            tracing::warn!(
                partition = %partition.name(), error = %error.chain(),
                "the next file of the tier has no typed columns; set ottla.tier.value.schema to what can be, or to nothing; an \
                 object that is damaged has to be restored"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Finds the names of columns in the list of the topic, and adds those that are new.
async fn place(
    store: &dyn Store,
    topic_id: TopicId,
    schema: &ValueSchema,
) -> Result<Vec<(String, u32)>> {
    let fields = schema.columns();
    for _ in 0..ROUNDS_MAX {
        let known: Columns = read_columns(store, topic_id).await?;
        let placed = known.place(&fields).map_err(Error::invalid)?;
        let Some(next) = placed.next else { return Ok(placed.names) };
        if create_columns(store, topic_id, &next).await? == Created::Created {
            return Ok(placed.names);
        }
    }
    let context = "others have written to the list of typed columns all the time";
    Err(Error::kafka(ErrorCode::KafkaStorageError, context))
}

/// The log says how many values of a file did not decode.
pub(super) fn report(partition: &Partition, file: &TierFile) {
    let Some(values) = file.values() else { return };
    let (Some(first), Some(last)) = (values.first, values.last_offset) else { return };
    tracing::warn!(
        partition = %partition.name(), undecoded = values.undecoded, rows = file.totals().rows,
        first_offset = %first.offset, last_offset = %last, cause = first.cause,
        "values that do not fit ottla.tier.value.schema have nulls in the typed columns of their file; they are in its column `value`"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::Env;
    use crate::store::FolderStore;
    use crate::types::Uuid;

    fn names(placed: &[(String, u32)]) -> Vec<&str> {
        placed.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[tokio::test]
    async fn brokers_agree_on_names_and_a_damaged_list_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = FolderStore::open(directory.path(), Env::real()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let (topic, other) = (Uuid([3; 16]), Uuid([4; 16]));
        let schema = |id: &str| {
            let text = format!("{{\"format\": \"json\", \"columns\": {{\"id\": \"{id}\"}}}}");
            ValueSchema::parse(&text).unwrap()
        };
        let (number, text) = (schema("int64"), schema("string"));
        assert_eq!(names(&place(&*store, topic, &number).await.unwrap()), ["id"]);
        assert_eq!(names(&place(&*store, topic, &text).await.unwrap()), ["id_string"]);
        assert_eq!(names(&place(&*store, topic, &number).await.unwrap()), ["id"]);
        assert_eq!(names(&place(&*store, other, &text).await.unwrap()), ["id"]);
        let known = read_columns(&*store, topic).await.unwrap();
        assert_eq!(known.all().len(), 2);

        // Another broker was first with a version.
        let late = Columns::default().place(&number.columns()).unwrap().next.unwrap();
        assert_eq!(create_columns(&*store, topic, &late).await.unwrap(), Created::Exists);

        let listed = store.list("_ottla/columns").await.unwrap();
        let newest = listed.iter().find(|one| one.path.ends_with("2.json")).unwrap();
        let path = directory.path().join(&newest.path);
        let told = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, told.replace("id_string", "id_strong")).unwrap();
        let error = place(&*store, topic, &number).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
