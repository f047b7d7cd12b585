"""What every part of the package uses: files, options, tables, plots."""
