//! What a benchmark prints: a table, and for each of its claims the figure beside its goal.
#![allow(dead_code, reason = "each benchmark uses its own part of it")]

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use serde::{Deserialize, Serialize};

/// One table.
#[derive(Deserialize, Serialize)]
pub struct Sheet {
    pub title: String,
    /// The first one is that of the rows' names.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub claims: Vec<Claim>,
}

/// A figure of this crate, and what it was to be.
#[derive(Deserialize, Serialize)]
pub struct Claim {
    pub what: String,
    pub figure: String,
    pub goal: String,
    pub is_met: bool,
    /// What is done by hand, in the same run.
    pub peer: String,
}

impl Sheet {
    pub fn new<const N: usize>(title: impl Into<String>, columns: [&str; N]) -> Self {
        let columns = columns.map(str::to_owned).into();
        Self { title: title.into(), columns, rows: Vec::new(), claims: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it. The report finds it, as JSON, in the file that it names.
    pub fn print(&self) {
        println!("\n{}", self.title);
        let lines: Vec<&Vec<String>> = [&self.columns].into_iter().chain(&self.rows).collect();
        let width = |n: usize| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| match n {
                0 => format!("  {cell:width$}"),
                _ => format!("  {cell:>width$}"),
            });
            println!("{}", cells.collect::<String>());
        }
        for claim in &self.claims {
            let Claim { what, figure, goal, is_met, peer } = claim;
            let verdict = if *is_met { "met" } else { "NOT MET" };
            println!("  {what}: {figure}; goal {goal}: {verdict} (others: {peer})");
        }
        if let Some(path) = env::var_os(SHEETS) {
            let mut file = OpenOptions::new().append(true).open(path).expect("the report's file");
            let json = serde_json::to_string(self).expect("strings");
            writeln!(file, "{json}").expect("the report's file");
        }
    }
}

/// The variable that names the report's file.
pub const SHEETS: &str = "REAUTH_SHEETS";
