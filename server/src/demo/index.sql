-- The most populous city is number 1.
UPDATE cities SET rank = ranked.rank
FROM (SELECT id, row_number() OVER (ORDER BY population DESC, id) AS rank FROM cities) AS ranked
WHERE cities.id = ranked.id;

CREATE UNIQUE INDEX cities_by_rank ON cities (rank);
CREATE INDEX cities_by_country ON cities (country, population);

COMMIT;
