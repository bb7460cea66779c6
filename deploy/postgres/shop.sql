-- A small shop.

CREATE TABLE products (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    price numeric(10, 2) NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stock (
    product_id bigint NOT NULL REFERENCES products,
    warehouse text NOT NULL,
    pieces integer NOT NULL,
    PRIMARY KEY (product_id, warehouse)
);

CREATE TABLE customers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    city text
);

INSERT INTO products (id, name, price)
SELECT n, 'Product ' || n, (n % 1000) + 0.99 FROM generate_series(1, 10000) AS n;

INSERT INTO stock (product_id, warehouse, pieces)
SELECT n, warehouse, n % 50 FROM generate_series(1, 10000) AS n, unnest(ARRAY ['north', 'south']) AS warehouse;

INSERT INTO customers (id, name, email, city)
SELECT n, 'Customer ' || n, 'customer' || n || '@example.com', (ARRAY ['Oslo', 'Lima', 'Pune'])[n % 3 + 1]
FROM generate_series(1, 1000) AS n;
