//! The manual pages of a program and, one each, of its subcommands.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::Roff;

use crate::help;
use crate::program::Program;

/// The pages: path below the root, and content.
pub(crate) fn all(program: &Program) -> io::Result<Vec<(String, String)>> {
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, program, program.more, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &clap::Command,
    program: &Program,
    more: &str,
    pages: &mut Vec<(String, String)>,
) -> io::Result<()> {
    let section = program.section;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let man = Man::new(command.clone())
        .section(section)
        .source(format!("iotdm {}", env!("CARGO_PKG_VERSION")))
        .manual("iotdm");

    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let mut sections = Roff::new();
    help::render(&help::sections(&after, more), &mut sections);
    sections.to_writer(&mut page)?;
    pages.push((
        format!("usr/share/man/man{section}/{name}.{section}"),
        String::from_utf8_lossy(&page).into_owned(),
    ));

    let see_also = format!("See also:\n{name}({section})\n");
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        add(subcommand, program, &see_also, pages)?;
    }
    Ok(())
}
