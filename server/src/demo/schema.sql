CREATE TABLE countries (
    code TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    capital TEXT NOT NULL,
    continent TEXT NOT NULL,
    area_km2 REAL NOT NULL,
    currency TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE cities (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    country TEXT NOT NULL,
    latitude REAL NOT NULL,
    longitude REAL NOT NULL,
    population INTEGER NOT NULL,
    timezone TEXT NOT NULL,
    rank INTEGER
);

BEGIN;
