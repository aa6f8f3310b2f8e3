//! The biller's reconciliation file: what became final since the last one.
