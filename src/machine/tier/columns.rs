//! The typed columns that the files of a topic have, or had: what each is called, for all times.
//!
//! All brokers that make files of a topic go by one list, an object in the store of which each version is created only if
//! absent. A name that was given stays with its field and type, so whoever reads all files of a topic finds one type
//! under each name: a field whose type changes gets another column, and the first one back when it changes back.
//!
//! # Invariants
//!
//! - `COLUMNS-1` A version has all columns of the one before it, unchanged.
//! - `COLUMNS-2` No two columns have one name, also where case does not count, or one field id.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The encoding of a version.
pub const COLUMNS_FORMAT: u16 = 1;
/// How many columns a topic can have had.
const COLUMNS_MAX: usize = 2000;
/// The field id of the first one. Those of the columns that all files have are smaller.
const FIRST_ID: u32 = 1000;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name in files.
    pub name: String,
    /// Of which field it is.
    pub field: String,
    /// The name of its type.
    pub data_type: String,
    /// Its field id.
    pub id: u32,
}

/// A version of the list, with everything that it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnsVersion {
    /// The encoding.
    pub format: u16,
    /// Its number, from 1.
    pub version: u64,
    /// All columns, in the order in which they came.
    pub columns: Vec<Column>,
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    version: u64,
    columns: Vec<Column>,
}

/// Where the columns of a file are in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedColumns {
    /// The name and the field id of each, in the order of the fields.
    pub names: Vec<(String, u32)>,
    /// The version that has to be there before the file is; none if the list has all of them.
    pub next: Option<ColumnsVersion>,
}

impl Columns {
    /// The list as of a version.
    ///
    /// # Errors
    ///
    /// `COLUMNS-2`.
    pub fn of(version: ColumnsVersion) -> Result<Self, String> {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for column in &version.columns {
            if !names.insert(column.name.to_lowercase()) || !ids.insert(column.id) {
                return Err(format!("column {:?} is there twice", column.name));
            }
        }
        Ok(Self { version: version.version, columns: version.columns })
    }

    /// All columns, in the order in which they came.
    #[must_use]
    pub fn all(&self) -> &[Column] {
        &self.columns
    }

    /// Finds the columns of these fields, each with the name of its type, and gives those that are new a name: that of the
    /// field, or with its type behind it where another column has that.
    ///
    /// # Errors
    ///
    /// There would be too many.
    pub fn place(&self, fields: &[(String, String)]) -> Result<PlacedColumns, String> {
        let mut columns = self.columns.clone();
        let mut taken: BTreeSet<String> =
            columns.iter().map(|column| column.name.to_lowercase()).collect();
        let mut names = Vec::with_capacity(fields.len());
        for (field, data_type) in fields {
            let is_it = |column: &&Column| column.field == *field && column.data_type == *data_type;
            if let Some(known) = columns.iter().find(is_it) {
                names.push((known.name.clone(), known.id));
                continue;
            }
            if columns.len() >= COLUMNS_MAX {
                return Err(format!(
                    "the topic has had {COLUMNS_MAX} typed columns, so there can be none for field {field:?} of type {data_type}"
                ));
            }
            let name = free_name(field, data_type, &taken);
            taken.insert(name.to_lowercase());
            let id = columns.iter().map(|column| column.id + 1).max().unwrap_or(FIRST_ID);
            names.push((name.clone(), id));
            let (field, data_type) = (field.clone(), data_type.clone());
            columns.push(Column { name, field, data_type, id });
        }
        let is_new = columns.len() > self.columns.len();
        let version = self.version + 1;
        let next = is_new.then_some(ColumnsVersion { format: COLUMNS_FORMAT, version, columns });
        Ok(PlacedColumns { names, next })
    }
}

/// `id`, `id_string`, `id_string_2` …: the first that nobody has.
fn free_name(field: &str, data_type: &str, taken: &BTreeSet<String>) -> String {
    let is_free = |name: &String| !taken.contains(&name.to_lowercase());
    let words = data_type.split(|one: char| !one.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let typed = format!("{field}_{}", words.join("_"));
    let numbered = (2_usize..).map(|number| format!("{typed}_{number}"));
    let mut names = [field.to_owned(), typed.clone()].into_iter().chain(numbered);
    names.find(is_free).unwrap_or(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(told: &[(&str, &str)]) -> Vec<(String, String)> {
        told.iter().map(|(name, data_type)| ((*name).to_owned(), (*data_type).to_owned())).collect()
    }

    /// The names of the columns of fields, and the list with them.
    fn placed(list: &Columns, told: &[(&str, &str)]) -> (Vec<String>, Columns) {
        let placed = list.place(&fields(told)).unwrap();
        let names = placed.names.into_iter().map(|(name, _)| name).collect();
        let next = placed.next.map_or_else(|| list.clone(), |next| Columns::of(next).unwrap());
        assert_eq!(next.all()[..list.all().len()], *list.all(), "COLUMNS-1");
        (names, next)
    }

    #[test]
    fn a_field_keeps_its_column_until_its_type_changes_and_gets_it_back_with_the_type() {
        let none = Columns::default();
        let (names, one) = placed(&none, &[("id", "int64"), ("name", "string")]);
        assert_eq!(names, ["id", "name"]);
        let (names, same) = placed(&one, &[("name", "string"), ("id", "int64")]);
        assert_eq!((names, &same), (vec!["name".to_owned(), "id".to_owned()], &one));
        let (names, two) = placed(&one, &[("id", "string"), ("price", "decimal128[10, 2]")]);
        assert_eq!(names, ["id_string", "price"]);
        let (names, three) = placed(&two, &[("id", "int64"), ("price", "timestamp[us, UTC]")]);
        assert_eq!(names, ["id", "price_timestamp_us_UTC"]);
        let ids: Vec<u32> = three.all().iter().map(|column| column.id).collect();
        assert_eq!(ids, [1000, 1001, 1002, 1003, 1004]);
        assert_eq!(three.place(&fields(&[("id", "string")])).unwrap().names[0].1, 1002);
    }

    #[test]
    fn names_differ_also_where_case_does_not_count() {
        let (_, list) = placed(&Columns::default(), &[("id", "int64"), ("id_string", "int64")]);
        let (names, list) = placed(&list, &[("ID", "int64"), ("id", "string"), ("Id", "string")]);
        assert_eq!(names, ["ID_int64", "id_string_2", "Id_string_3"]);
        let mut twice = list.place(&fields(&[("new", "bool")])).unwrap().next.unwrap();
        twice.columns[0].name = "NEW".to_owned();
        assert!(Columns::of(twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn there_is_an_end_to_columns() {
        let many: Vec<_> =
            (0..COLUMNS_MAX).map(|number| (format!("a{number}"), "bool".to_owned())).collect();
        let full = Columns::of(Columns::default().place(&many).unwrap().next.unwrap()).unwrap();
        let error = full.place(&fields(&[("b", "bool")])).unwrap_err();
        assert!(error.contains("\"b\""), "{error}");
        assert_eq!(full.place(&many).unwrap().next, None);
    }
}
