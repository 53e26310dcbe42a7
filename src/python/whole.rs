//! Whole numbers from Python, where `True` passes as 1 unless somebody looks.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBool;

/// A whole number, which a bool is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole<T>(pub(super) T);

impl<'py, T> FromPyObject<'_, 'py> for Whole<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err(format!("{} is not a whole number", *object)));
        }
        object.extract().map(Self)
    }
}

/// The number in it, if there is one.
pub(super) fn number<T>(whole: Option<Whole<T>>) -> Option<T> {
    whole.map(|whole| whole.0)
}
